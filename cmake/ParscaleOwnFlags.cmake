# parscale_own_flags: how programs, tests and benchmarks of this project are compiled. It is not exported: a project that
# uses the library chooses its own flags. All of ours must share one -march, Eigen's types differ in alignment otherwise.

include(CheckCXXCompilerFlag)

add_library(parscale_own_flags INTERFACE)
target_compile_options(parscale_own_flags INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                                                    $<$<BOOL:${PARSCALE_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 sees an overlap in every inlined `"text" + std::string` (its bug 105329).
  target_compile_options(parscale_own_flags INTERFACE -Wno-restrict)
endif()
if(PARSCALE_MARCH)
  string(MAKE_C_IDENTIFIER "PARSCALE_HAS_MARCH_${PARSCALE_MARCH}" has_march)
  check_cxx_compiler_flag("-march=${PARSCALE_MARCH}" ${has_march})
  if(${has_march})
    target_compile_options(parscale_own_flags INTERFACE -march=${PARSCALE_MARCH})
  else()
    message(WARNING "${CMAKE_CXX_COMPILER_ID} does not know -march=${PARSCALE_MARCH}; the programs will be slow. "
                    "Choose another one with -D PARSCALE_MARCH=...")
  endif()
endif()
