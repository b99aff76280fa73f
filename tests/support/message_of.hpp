// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coyote/core/error.hpp"

namespace coyote::test {

/// What an action's error says.
template <class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

}  // namespace coyote::test
