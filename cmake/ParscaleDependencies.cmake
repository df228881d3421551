# What each component stands on. The build reads this file, and so does find_package(parscale): it is installed.
#
#   parscale_find_dependencies(cpu)   finds them; parscale_missing then names those that are not there

macro(parscale_need package debian_package)  # further arguments go to find_package
  find_package(${package} ${ARGN} QUIET)
  if(NOT ${package}_FOUND)
    list(APPEND parscale_missing "${package} (Debian and Ubuntu: ${debian_package})")
  endif()
endmacro()

# Libraries that ship no CMake package everywhere: the target is PkgConfig::parscale_<module>. GLOBAL, because a
# project that includes us by add_subdirectory links it from a directory above ours.
macro(parscale_need_module module debian_package)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(parscale_${module} QUIET IMPORTED_TARGET GLOBAL ${module})
  endif()
  if(NOT parscale_${module}_FOUND)
    list(APPEND parscale_missing "${module} (Debian and Ubuntu: ${debian_package}, pkg-config)")
  endif()
endmacro()

# OpenBLAS and no other BLAS: it is the one that the tests are run with. Its target is BLAS::BLAS.
function(parscale_find_openblas found)
  set(BLA_VENDOR OpenBLAS)
  find_package(BLAS QUIET)
  set(${found} ${BLAS_FOUND} PARENT_SCOPE)
endfunction()

# NCCL ships no CMake package: the target is parscale_dependency::nccl. Looked for beside the CUDA toolkit, too.
macro(parscale_need_nccl)
  find_path(PARSCALE_NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(PARSCALE_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  mark_as_advanced(PARSCALE_NCCL_INCLUDE_DIR PARSCALE_NCCL_LIBRARY)
  if(NOT PARSCALE_NCCL_INCLUDE_DIR OR NOT PARSCALE_NCCL_LIBRARY)
    list(APPEND parscale_missing "NCCL (NVIDIA's repository for Debian and Ubuntu: libnccl-dev)")
  elseif(NOT TARGET parscale_dependency::nccl)
    add_library(parscale_dependency::nccl UNKNOWN IMPORTED GLOBAL)
    set_target_properties(parscale_dependency::nccl PROPERTIES IMPORTED_LOCATION ${PARSCALE_NCCL_LIBRARY}
                                                               INTERFACE_INCLUDE_DIRECTORIES ${PARSCALE_NCCL_INCLUDE_DIR})
  endif()
endmacro()

macro(parscale_find_dependencies component)
  set(parscale_missing "")
  if("${component}" STREQUAL "cpu")
    parscale_need(Eigen3 libeigen3-dev 3.4 NO_MODULE)
    parscale_need(Threads libc6-dev)
    if(PARSCALE_USE_BLAS)
      parscale_find_openblas(parscale_openblas_found)
      if(NOT parscale_openblas_found)
        list(APPEND parscale_missing "OpenBLAS (Debian and Ubuntu: libopenblas-dev)")
      endif()
    endif()
  elseif("${component}" STREQUAL "cuda")
    parscale_need(CUDAToolkit nvidia-cuda-toolkit 12)
  elseif("${component}" STREQUAL "text")
    parscale_need(ZLIB zlib1g-dev)
    parscale_need_module(libzstd libzstd-dev)
    parscale_need_module(libpcre2-8 libpcre2-dev)
    parscale_need_module(libutf8proc libutf8proc-dev)
  elseif("${component}" STREQUAL "mpi")
    parscale_need(Threads libc6-dev)
    set(MPI_CXX_SKIP_MPICXX ON)  # only the C functions are used
    parscale_need(MPI libopenmpi-dev COMPONENTS CXX)
  elseif("${component}" STREQUAL "nccl")
    parscale_need(Threads libc6-dev)
    parscale_need(CUDAToolkit nvidia-cuda-toolkit)
    parscale_need_nccl()
  endif()
endmacro()
