# SPDX-License-Identifier: Apache-2.0
# What this project's own programs (tests, examples, benchmarks) are compiled with; nothing here reaches users.
add_library(coyote_own INTERFACE)
target_link_libraries(coyote_own INTERFACE coyote::coyote)
target_compile_options(coyote_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wconversion -Wshadow -Werror>)
if(COYOTE_NATIVE)
  target_compile_options(coyote_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()

# The same for units that nvcc compiles. Warnings of the host's compiler leave out -Wconversion: nvcc's own stubs have some.
add_library(coyote_own_cuda INTERFACE)
target_link_libraries(coyote_own_cuda INTERFACE coyote::cuda_compiled)
set(coyote_own_cuda_options $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wshadow,-Werror>)
target_compile_options(coyote_own_cuda INTERFACE ${coyote_own_cuda_options})
if(TARGET coyote_cuda_compiled)
  target_compile_options(coyote_cuda_compiled PRIVATE ${coyote_own_cuda_options})
endif()

# coyote_add_program(<target> <source>...): one executable from its sources.
function(coyote_add_program target source)
  add_executable(${target} ${source} ${ARGN})
  target_link_libraries(${target} PRIVATE coyote_own)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

# coyote_add_cuda_program(<target> <source>...): one executable from .cu units.
function(coyote_add_cuda_program target source)
  add_executable(${target} ${source} ${ARGN})
  target_link_libraries(${target} PRIVATE coyote_own_cuda)
endfunction()
