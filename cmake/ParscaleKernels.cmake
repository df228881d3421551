# parscale_kernels: the CPU backend's kernels, which no architecture decides, compiled once for programs and tests.

add_library(parscale_kernels OBJECT ${PROJECT_SOURCE_DIR}/examples/common/cpu_kernels.cpp)
target_link_libraries(parscale_kernels PRIVATE parscale::cpu parscale_own_flags)
target_compile_options(parscale_kernels PRIVATE $<$<CONFIG:Debug>:-O1>)  # without, products take minutes
