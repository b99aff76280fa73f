# SPDX-License-Identifier: Apache-2.0
# Install rules: headers, a CMake package (find_package(coyote)) and a pkg-config file.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(coyote_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/coyote)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/coyote DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp"
                                                                                                PATTERN "*.cuh" PATTERN "*.cu")
install(TARGETS coyote EXPORT coyoteTargets)
install(EXPORT coyoteTargets NAMESPACE coyote:: DESTINATION ${coyote_cmake_dir})
install(TARGETS coyote_cuda EXPORT coyoteCudaTargets)
install(EXPORT coyoteCudaTargets NAMESPACE coyote:: DESTINATION ${coyote_cmake_dir})

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/coyoteConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/coyoteConfig.cmake INSTALL_DESTINATION ${coyote_cmake_dir})
# Before version 1 a minor release may change public names, so only the same minor release is compatible.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/coyoteConfigVersion.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/coyoteConfig.cmake ${PROJECT_BINARY_DIR}/coyoteConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/CoyoteCudaCompiled.cmake
        DESTINATION ${coyote_cmake_dir})

# The prefix is computed from where the file lies, so that an installed tree can be moved.
file(RELATIVE_PATH coyote_pc_to_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${PROJECT_SOURCE_DIR}/cmake/coyote.pc.in ${PROJECT_BINARY_DIR}/coyote.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/coyote.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
