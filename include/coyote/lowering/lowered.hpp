// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/combinators/block.hpp"
#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/combine.hpp"
#include "coyote/combinators/repeat.hpp"
#include "coyote/combinators/residual.hpp"
#include "coyote/combinators/select.hpp"

namespace coyote::inline v0 {

/// Fusion as a rewrite of the type: Lower<M, Backend>::type is M with parts replaced by internal mixers that do the same in
/// fewer passes. A rule is a specialisation; the rules of a backend are one list (lowering/rules.hpp), included by the header
/// that brings the backend, so that every unit of a program sees the same ones. Facts, parameter names, checkpoints and
/// initial values are those of the unlowered type, and the options are the same type.
template <class M, class Backend>
struct Lower {
  using type = M;
};

/// The architecture that actually runs. Models apply it; a Layer used by itself is never fused.
template <class M, class Backend>
using lowered = typename Lower<M, Backend>::type;

// Combinators are rebuilt from their lowered parts.
template <class... Ms, class Backend>
struct Lower<Chain<Ms...>, Backend> {
  using type = Chain<lowered<Ms, Backend>...>;
};
template <class Join, class A, class B, class Backend>
struct Lower<Combine<Join, A, B>, Backend> {
  using type = Combine<Join, lowered<A, Backend>, lowered<B, Backend>>;
};
template <class A, class Backend>
struct Lower<Residual<A>, Backend> {
  using type = Residual<lowered<A, Backend>>;
};
template <class A, class Norm, class Backend>
struct Lower<Block<A, Norm>, Backend> {
  using type = Block<lowered<A, Backend>, Norm>;
};
template <class T, class A, class Backend>
struct Lower<Select<T, A>, Backend> {
  using type = Select<T, lowered<A, Backend>>;
};
template <class A, Index N, class Backend>
struct Lower<Repeat<A, N>, Backend> {
  using type = Repeat<lowered<A, Backend>, N>;
};

}  // namespace coyote::inline v0
