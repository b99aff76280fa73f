# SPDX-License-Identifier: Apache-2.0
# coyote::cuda_compiled, for projects that have enabled CUDA as a language: coyote::cuda whose heaviest operations (long
# convolutions, attention, linear maps, norms, the loss) are compiled once, into a static library, and not in every unit that uses them. Included
# with coyote_operations_dir, where their sources are.
if(CMAKE_CUDA_COMPILER AND NOT TARGET coyote::cuda_compiled)
  file(GLOB coyote_cuda_operations CONFIGURE_DEPENDS ${coyote_operations_dir}/*.cu)
  add_library(coyote_cuda_compiled STATIC EXCLUDE_FROM_ALL ${coyote_cuda_operations})
  add_library(coyote::cuda_compiled ALIAS coyote_cuda_compiled)
  target_link_libraries(coyote_cuda_compiled PUBLIC coyote::cuda)
  target_compile_definitions(coyote_cuda_compiled PUBLIC COYOTE_CUDA_COMPILED)
endif()
