# Lists every file that a header includes, and fails when one belongs to a library that CUDA sources must not see.

execute_process(
  COMMAND ${COMPILER} -std=c++20 -I ${INCLUDE} -x c++ -M ${INCLUDE}/parscale/${HEADER}
  OUTPUT_VARIABLE files ERROR_VARIABLE errors RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${HEADER} does not compile without further include directories:\n${errors}")
endif()
if(files MATCHES "[^ \n]*/(Eigen|eigen3|nlohmann|fmt|yaml-cpp|CLI)/[^ \n]*")
  message(FATAL_ERROR "${HEADER} includes ${CMAKE_MATCH_0}")
endif()
