// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/combinators/chain.hpp"
#include "coyote/combinators/gate.hpp"
#include "coyote/mixers/activations.hpp"
#include "coyote/mixers/linear.hpp"
#include "coyote/mixers/part.hpp"
#include "coyote/mixers/token_shift.hpp"
#include "coyote/mixers/wkv.hpp"

namespace coyote::inline v0 {

namespace internal {
/// sigmoid(r) * wkv(k, v), from the mixtures for k, v and r side by side.
using GatedWkv = Gate<Chain<Part<2, 3>, LinearWith<NoBias>, Sigmoid>,
                      Wkv<Chain<Part<0, 3>, LinearWith<NoBias>>, Chain<Part<1, 3>, LinearWith<NoBias>>>>;
}  // namespace internal

/// The time mix of RWKV-4: y = (sigmoid(r) * wkv(k, v)) W_o with k = shift_k(u) W_k, v = shift_v(u) W_v, r = shift_r(u) W_r,
/// where shift_x(u)_i = m_x u_i + (1 - m_x) u_(i-1). The three mixtures share one remembered row, so the state is 4*D scalars.
/// Source: RWKV (arXiv 2305.13048), section 3.1.
using Rwkv = Chain<TokenShift<3>, internal::GatedWkv, LinearWith<NoBias>>;

/// The public initial values of layer `layer` of `layers`, with D channels, rho = layer / (layers - 1), s = 1 - layer / layers:
/// decay_c = -5 + 8 (c / (D - 1))^(0.7 + 1.3 rho); bonus_c = ln 0.3 + 0.5 (((c + 1) mod 3) - 1);
/// m_k = (c / D)^s, m_v = (c / D)^s + 0.3 rho, m_r = (c / D)^(s / 2); matrices U(-1/sqrt D, 1/sqrt D).
/// The published MQAR runs keep layers = 12 whatever their depth.
inline Rwkv::Options rwkv_options(Index layer, Index layers = 12) {
  if (layers < 1 || layer < 0 || layer >= layers) {
    throw Error("rwkv_options", "a layer from 0 to layers - 1", words("layer ", layer, " of ", layers));
  }
  const double rho = layers == 1 ? 0.0 : static_cast<double>(layer) / static_cast<double>(layers - 1);
  const double s = 1 - static_cast<double>(layer) / static_cast<double>(layers);
  const auto power = [](Index, Index c, Index, Index width, const double(&p)[4], const Stream&) {
    return std::pow(static_cast<double>(c) / static_cast<double>(width), p[0]) + p[1];
  };
  const Init matrix = Init::from([](Index row, Index c, Index rows, Index columns, const double(&)[4], const Stream& draws) {
    return (2 * draws.uniform(static_cast<std::uint64_t>(row * columns + c)) - 1) / std::sqrt(static_cast<double>(rows));
  });

  Rwkv::Options options;
  auto& [shift, gate, out] = options.parts;
  shift.mix[0] = Init::from(power, s, 0);
  shift.mix[1] = Init::from(power, s, 0.3 * rho);
  shift.mix[2] = Init::from(power, s / 2, 0);
  std::get<1>(gate.left.parts).weight = matrix;
  std::get<1>(gate.right.left.parts).weight = matrix;
  std::get<1>(gate.right.right.parts).weight = matrix;
  out.weight = matrix;
  gate.right.join.decay = Init::from(
      [](Index, Index c, Index, Index width, const double(&p)[4], const Stream&) {
        const double place = width == 1 ? 0.0 : static_cast<double>(c) / static_cast<double>(width - 1);
        return -5 + 8 * std::pow(place, p[0]);
      },
      0.7 + 1.3 * rho);
  gate.right.join.bonus = Init::from([](Index, Index c, Index, Index, const double(&)[4], const Stream&) {
    return std::log(0.3) + 0.5 * static_cast<double>((c + 1) % 3 - 1);
  });
  return options;
}

}  // namespace coyote::inline v0
