# Compiles SOURCE and compares the outcome with its line `// expect: TEXT`.

file(STRINGS ${SOURCE} expect REGEX "^// expect: ")
string(REGEX REPLACE "^// expect: " "" expect "${expect}")
if(expect STREQUAL "")
  message(FATAL_ERROR "${SOURCE} lacks a line `// expect: TEXT`")
endif()

list(TRANSFORM INCLUDES PREPEND -I)
execute_process(COMMAND ${COMPILER} -std=c++20 -fsyntax-only ${INCLUDES} ${SOURCE}
                RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)

if(expect STREQUAL "success")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "It should compile:\n${output}")
  endif()
elseif(result EQUAL 0)
  message(FATAL_ERROR "It compiles, and should fail with: ${expect}")
else()
  string(FIND "${output}" "${expect}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "It fails without the words: ${expect}\n${output}")
  endif()
endif()
