// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/error.hpp"

#include <doctest/doctest.h>

namespace cy = coyote;

TEST_CASE("an error says where, what is required and what came") {
  const cy::Error error("layers.0.linear", "width 64", "63");
  CHECK(std::string(error.what()) == "layers.0.linear: required width 64, came 63");
  CHECK(error.where() == "layers.0.linear");
  CHECK(error.required() == "width 64");
  CHECK(error.came() == "63");
  CHECK_THROWS_AS(throw error, std::runtime_error);
}

TEST_CASE("words joins texts and numbers") {
  CHECK(cy::words() == "");
  CHECK(cy::words("[", 2, ", ", -3L, "]", std::string("!"), std::string_view("?")) == "[2, -3]!?");
}
