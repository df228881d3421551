# Installs parscale (unless ROUTE is add_subdirectory), then configures, builds and runs PROJECT with it.
# With FAILS_WITH, configuring must fail and say those words.

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${WORK})  # nothing of an earlier installation may help
if(ROUTE STREQUAL "add_subdirectory")
  set(route -D PARSCALE_SOURCE=${SOURCE})
else()
  run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
  set(route -D CMAKE_PREFIX_PATH=${WORK}/prefix)
endif()
foreach(choice IN ITEMS VERSION MORE_COMPONENTS)
  if(DEFINED ${choice})
    list(APPEND route -D ${choice}=${${choice}})
  endif()
endforeach()

set(configure ${CMAKE_COMMAND} -G Ninja -S ${PROJECT} -B ${WORK}/build -D CMAKE_CXX_COMPILER=${COMPILER} ${route})
if(NOT DEFINED FAILS_WITH)
  run(${configure})
  run(${CMAKE_COMMAND} --build ${WORK}/build)
  run(${WORK}/build/app)
  return()
endif()

execute_process(COMMAND ${configure} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
string(FIND "${output}" "${FAILS_WITH}" position)
if(result EQUAL 0 OR position EQUAL -1)
  message(FATAL_ERROR "Configuring should fail with: ${FAILS_WITH}\n${output}")
endif()
