// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "theory/compile_time_set.hpp"

using namespace coyote;
using namespace coyote::theory;
using namespace coyote::test::compile_time;

TEST_CASE("what the compiler found holds when it runs, too") {
  CHECK(golden<int>());
  CHECK(golden<long>());
  CHECK(golden<Field>());
  CHECK(golden<Rational>());
  CHECK(table_works());
  CHECK(unfold_works<Field>());
  CHECK(unfold_works<long>());
  CHECK(equality_works());
  CHECK(product_tree_works());
  CHECK(benes_works());
  CHECK(circuit_works());
  CHECK(h3_works());
  CHECK(hyena_public_works());
  CHECK(retention_works());
  CHECK(inverse_works());
}
