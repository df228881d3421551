# CUDA for the programs and tests of this project: the language, the architectures, and the kernels as one library, so that
# everything else is compiled by the C++ compiler alone.

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual)  # PTX for what comes after
endif()
if("90-real" IN_LIST CMAKE_CUDA_ARCHITECTURES OR "90" IN_LIST CMAKE_CUDA_ARCHITECTURES)
  message(FATAL_ERROR "CMAKE_CUDA_ARCHITECTURES names 90 as machine code: Hopper's attention needs 90a-real.")
endif()
enable_language(CUDA)
if(CMAKE_VERSION VERSION_LESS 3.26)  # it does not know nvcc's C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()

file(GLOB cuda_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/common/cuda_*.cu)
add_library(parscale_cuda_kernels STATIC ${cuda_sources})
target_link_libraries(parscale_cuda_kernels PUBLIC parscale::cuda)
set_target_properties(parscale_cuda_kernels PROPERTIES CUDA_STANDARD 20 CUDA_EXTENSIONS OFF)
target_compile_options(parscale_cuda_kernels PRIVATE
  "$<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Wno-restrict>")
