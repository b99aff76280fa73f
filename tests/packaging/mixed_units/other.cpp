// SPDX-License-Identifier: Apache-2.0
#include <coyote/operations/cpu/unit.hpp>
