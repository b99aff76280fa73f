// SPDX-License-Identifier: Apache-2.0
// A norm divides, so it does not exist over a ring; the message names the leaf, not the chain.
// expect: coyote: this mixer has no Layer on this backend and scalar: specialise coyote::Layer for it, or choose another
// expect near: RequireLeaf<coyote::(v0::)?Norm<coyote::(v0::)?NormKind::layer>, coyote::(v0::)?Reference, long
#include <coyote/coyote.hpp>

namespace cy = coyote;

#ifdef COYOTE_EXPECT_OK
using Scalar = double;
#else
using Scalar = long;
#endif

template class cy::Model<cy::Chain<cy::Linear, cy::Block<cy::Linear>>, cy::Reference, Scalar>;
