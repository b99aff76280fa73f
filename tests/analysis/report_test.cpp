// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "coyote/analysis/report.hpp"

#include <doctest/doctest.h>

#include "coyote/architectures/coyote.hpp"
#include "coyote/architectures/hybrid.hpp"

namespace {

using namespace coyote;

TEST_CASE("the table of a Coyote layer") {
  CHECK(describe<Coyote<LongConv<>>>(4, 8) ==
        "one sequence of 8 rows, width 4\n"
        "  causal              yes\n"
        "  input-dependent     no\n"
        "  degree              2\n"
        "  parameters          56\n"
        "  multiplications     304\n"
        "  additions           272\n"
        "  functions           0\n"
        "  decoding state      32 scalars, growing with the length\n");
}

TEST_CASE("bounded states, integers, upper bounds and mixers without a state are told") {
  const std::string local = describe<Coyote<ShortConv<3>>>(4, 8), hybrid = describe<Hybrid<RepeatedBigrams<4>>>(64, 1024),
                    ring = describe<LongConv<FreeFilter, Cyclic>>(4, 8);
  CHECK(local.find("8 scalars, whatever the length\n") != std::string::npos);
  CHECK(local.find("upper bounds") == std::string::npos);
  CHECK(hybrid.find("not a polynomial") != std::string::npos);
  CHECK(hybrid.find("131,200 scalars, 4,096 integers, growing with the length\n") != std::string::npos);
  CHECK(hybrid.find("upper bounds") != std::string::npos);
  CHECK(describe<Hybrid<RepeatedBigrams<4>>>(64, 1024, 100).find("upper bounds") == std::string::npos);
  CHECK(ring.find("causal              no\n") != std::string::npos);
  CHECK(ring.find("state") == std::string::npos);
}

TEST_CASE("counts are grouped by thousands") {
  CHECK(detail::grouped(0) == "0");
  CHECK(detail::grouped(999) == "999");
  CHECK(detail::grouped(1000) == "1,000");
  CHECK(detail::grouped(1234567) == "1,234,567");
  CHECK(detail::grouped(-1000) == "-1,000");
  CHECK(detail::grouped(-100) == "-100");
}

}  // namespace
