# The architectures that the programs are compiled for: a source file each and backend, so that a build runs them side by
# side.
#
#   parscale_generate_architectures(sources              variable that receives the generated files
#     TEMPLATES    architecture_on_cpu.cpp.in ...         become architecture_on_cpu_d64_p4_expanded.cpp, ...
#     SET_TEMPLATE compiled_set.hpp.in                    becomes compiled_set.hpp, which lists them all
#     DECLARATION  "extern Program make_@ARCHITECTURE_NAME@();\n"    per architecture, joined: @DECLARATIONS@
#     ENTRY        "{@HEAD_DIM@, @REPLICAS@, ...},\n"                per architecture, joined: @ENTRIES@
#     DIRECTORY    where they are written)
#
# In all four, @HEAD_DIM@, @REPLICAS@, @KIND@ (none, expanded, sublayer) and @ARCHITECTURE_NAME@ (d64_p4_expanded) are
# replaced. One replica has nobody to cross to, so it comes with kind none alone.

function(parscale_check_compiled_set)
  if(NOT PARSCALE_HEAD_DIMS OR NOT PARSCALE_REPLICAS)
    message(FATAL_ERROR "PARSCALE_HEAD_DIMS and PARSCALE_REPLICAS must each name one value at least.")
  endif()
  foreach(head_dim IN LISTS PARSCALE_HEAD_DIMS)
    if(NOT head_dim MATCHES "^[1-9][0-9]*$" OR head_dim GREATER 256)
      message(FATAL_ERROR "PARSCALE_HEAD_DIMS holds \"${head_dim}\": it must be a multiple of 8 between 8 and 256.")
    endif()
    math(EXPR rest "${head_dim} % 8")
    if(NOT rest EQUAL 0)
      message(FATAL_ERROR "PARSCALE_HEAD_DIMS holds ${head_dim}: it must be a multiple of 8 between 8 and 256.")
    endif()
  endforeach()
  foreach(replicas IN LISTS PARSCALE_REPLICAS)
    if(NOT replicas MATCHES "^[1-9][0-9]*$" OR replicas GREATER 64)
      message(FATAL_ERROR "PARSCALE_REPLICAS holds \"${replicas}\": it must lie between 1 and 64.")
    endif()
  endforeach()
endfunction()

function(parscale_generate_architectures result)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "SET_TEMPLATE;DECLARATION;ENTRY;DIRECTORY" "TEMPLATES")
  parscale_check_compiled_set()
  set(sources "")
  set(DECLARATIONS "")
  set(ENTRIES "")
  foreach(HEAD_DIM IN LISTS PARSCALE_HEAD_DIMS)
    foreach(REPLICAS IN LISTS PARSCALE_REPLICAS)
      set(kinds none expanded sublayer)
      if(REPLICAS EQUAL 1)
        set(kinds none)
      endif()
      foreach(KIND IN LISTS kinds)
        set(ARCHITECTURE_NAME d${HEAD_DIM}_p${REPLICAS}_${KIND})
        foreach(template IN LISTS arg_TEMPLATES)
          cmake_path(GET template STEM stem)
          set(source ${arg_DIRECTORY}/${stem}_${ARCHITECTURE_NAME}.cpp)
          configure_file(${template} ${source} @ONLY)
          list(APPEND sources ${source})
        endforeach()
        string(CONFIGURE "${arg_DECLARATION}" declaration @ONLY)
        string(APPEND DECLARATIONS "${declaration}")
        string(CONFIGURE "${arg_ENTRY}" entry @ONLY)
        string(APPEND ENTRIES "${entry}")
      endforeach()
    endforeach()
  endforeach()
  configure_file(${arg_SET_TEMPLATE} ${arg_DIRECTORY}/compiled_set.hpp @ONLY)
  set(${result} ${sources} PARENT_SCOPE)
endfunction()
