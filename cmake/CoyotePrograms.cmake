# SPDX-License-Identifier: Apache-2.0
# What this project's own programs (tests, examples, benchmarks) are compiled with; nothing here reaches users.
add_library(coyote_own INTERFACE)
target_link_libraries(coyote_own INTERFACE coyote::coyote)
target_compile_options(coyote_own INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror)
if(COYOTE_NATIVE)
  target_compile_options(coyote_own INTERFACE -march=native)
endif()

# coyote_add_program(<target> <source>...): one executable from its sources.
function(coyote_add_program target source)
  add_executable(${target} ${source} ${ARGN})
  target_link_libraries(${target} PRIVATE coyote_own)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()
