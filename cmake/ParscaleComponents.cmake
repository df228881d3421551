# The library: headers only, so every component is an INTERFACE target that says what its headers need.
#
#   parscale::parscale   the headers and C++20
#   parscale::cpu        the CPU backend: Eigen, threads, OpenBLAS when it is used
#   parscale::cuda       the CUDA backend: the CUDA runtime, cuBLASLt
#   parscale::text       tokenizer and text files: zlib, zstd, PCRE2, utf8proc
#   parscale::mpi        ranks that speak MPI; those on threads and over TCP need the CPU component alone
#   parscale::nccl       ranks with a GPU each: NCCL and the CUDA runtime

include(cmake/ParscaleDependencies.cmake)
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)  # a project that includes us links them from a directory above ours
set(parscale_components parscale)          # those that can be used here; the install rules export them

# PARSCALE_USE_BLAS becomes a plain yes or no before anything asks for it.
if(PARSCALE_USE_BLAS STREQUAL "AUTO")
  parscale_find_openblas(PARSCALE_USE_BLAS)
endif()

add_library(parscale INTERFACE)
add_library(parscale::parscale ALIAS parscale)
target_compile_features(parscale INTERFACE cxx_std_20)
target_include_directories(parscale INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                              $<INSTALL_INTERFACE:include>)

# parscale_add_component(name libraries...): the component, or a message when it lacks something.
macro(parscale_add_component name)
  parscale_find_dependencies(${name})
  if(parscale_missing)
    list(JOIN parscale_missing "\n  " parscale_text)
    message(NOTICE "parscale: component ${name} is left out; it needs\n  ${parscale_text}")
  else()
    add_library(parscale_${name} INTERFACE)
    add_library(parscale::${name} ALIAS parscale_${name})
    set_target_properties(parscale_${name} PROPERTIES EXPORT_NAME ${name})
    target_link_libraries(parscale_${name} INTERFACE parscale ${ARGN})
    list(APPEND parscale_components ${name})
  endif()
endmacro()

parscale_add_component(cpu Eigen3::Eigen Threads::Threads)
parscale_add_component(cuda CUDA::cudart CUDA::cublasLt)
parscale_add_component(text ZLIB::ZLIB PkgConfig::parscale_libzstd
                       PkgConfig::parscale_libpcre2-8 PkgConfig::parscale_libutf8proc)
parscale_add_component(mpi Threads::Threads MPI::MPI_CXX)
parscale_add_component(nccl Threads::Threads CUDA::cudart parscale_dependency::nccl)

if(TARGET parscale_cpu AND PARSCALE_USE_BLAS)
  target_compile_definitions(parscale_cpu INTERFACE EIGEN_USE_BLAS PARSCALE_USE_BLAS)
  target_link_libraries(parscale_cpu INTERFACE BLAS::BLAS)
  message(STATUS "parscale: products on the CPU go through OpenBLAS")
elseif(TARGET parscale_cpu)
  message(STATUS "parscale: products on the CPU are Eigen's own")
endif()

if(PARSCALE_BUILD_EXAMPLES OR PARSCALE_BUILD_TESTS OR PARSCALE_BUILD_BENCH)
  if(NOT TARGET parscale_cpu OR NOT TARGET parscale_text)
    message(FATAL_ERROR "Programs, tests and benchmarks need the components cpu and text. "
                        "scripts/setup installs what is missing on Debian 12 and Ubuntu 24.04.")
  endif()
endif()
