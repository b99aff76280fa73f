// SPDX-License-Identifier: Apache-2.0
// expect: Cpu computes in float or double; Reference takes any other ring
#include <coyote/coyote.hpp>

using namespace coyote;

#ifdef COYOTE_EXPECT_OK
using Scalar = float;
#else
using Scalar = int;
#endif
Model<Gate<Linear, ShortConv<3>>, Cpu, Scalar> model({8, 16});
