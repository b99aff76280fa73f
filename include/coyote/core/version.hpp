// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Semantic version of the public names. The inline namespace `coyote::v0` carries the major version, so that units
/// compiled against incompatible releases do not link by accident.
#define COYOTE_VERSION_MAJOR 0
#define COYOTE_VERSION_MINOR 1
#define COYOTE_VERSION_PATCH 0
#define COYOTE_VERSION "0.1.0"
