# cmake --install: headers, and the package that find_package(parscale COMPONENTS ...) reads. Each component has an
# export set of its own, so that asking for one never needs the libraries of another.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/parscale)

install(DIRECTORY include/parscale DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

foreach(component IN LISTS parscale_components)
  set(target parscale_${component})
  if(component STREQUAL "parscale")
    set(target parscale)
  endif()
  install(TARGETS ${target} EXPORT parscale-${component})
  install(EXPORT parscale-${component} NAMESPACE parscale:: DESTINATION ${package_dir})
endforeach()

configure_package_config_file(cmake/parscaleConfig.cmake.in ${PROJECT_BINARY_DIR}/parscaleConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may break its users.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/parscaleConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/parscaleConfig.cmake ${PROJECT_BINARY_DIR}/parscaleConfigVersion.cmake
              cmake/ParscaleDependencies.cmake
        DESTINATION ${package_dir})
