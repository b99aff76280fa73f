// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <span>

#include "coyote/core/parameters.hpp"
#include "coyote/operations/rowwise.hpp"

namespace coyote::inline v0 {

/// Options of AdamW. Defaults are those of the MQAR experiment: one decay on all parameters.
struct AdamWOptions {
  double rate = 3e-3;  ///< highest learning rate; a schedule scales it
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.1;
  bool decay_everything = true;  ///< false: biases, norms and the like, which say so, do not decay
};

/// One update of every value of a store, with t = 1, 2, ... the number of the update:
///     m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
///     value -= rate * weight_decay * value;  value -= rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
/// with g the gradient, scaled to the norm `clip` if it is longer (0: never). Nothing moves when the loss or the norm, whose
/// square is `squares`, is not finite. Source: Loshchilov and Hutter (arXiv 1711.05101), algorithm 2.
template <RowContext C, class P, class Backend>
void adamw(C& context, const AdamWOptions& options, double rate, std::uint64_t t, double clip, double loss, double squares,
           ParameterStore<P, Backend>& store, Array<P>& first, Array<P>& second) {
  using std::sqrt;
  const double norm = std::sqrt(squares), gradient_scale = clip > 0 && norm > clip ? clip / norm : 1;
  if (!std::isfinite(loss) || !std::isfinite(norm)) return;
  const auto b1 = static_cast<P>(options.beta1), b2 = static_cast<P>(options.beta2), one = static_cast<P>(1.0);
  const auto correction1 = static_cast<P>(1 / (1 - std::pow(options.beta1, static_cast<double>(t))));
  const auto correction2 = static_cast<P>(1 / (1 - std::pow(options.beta2, static_cast<double>(t))));
  const auto scale = static_cast<P>(gradient_scale), step = static_cast<P>(rate), epsilon = static_cast<P>(options.epsilon);
  constexpr Index block = 4096;
  for (const Segment& segment : store.segments()) {
    const auto keep = static_cast<P>(options.decay_everything || segment.decays ? 1 - rate * options.weight_decay : 1.0);
    P* const values = store.values().data() + segment.begin;
    const P* const gradients = store.gradients().data() + segment.begin;
    P* const m = first.data() + segment.begin;
    P* const v = second.data() + segment.begin;
    context.for_rows(ceil_div(segment.size, block), block, [&](Index b) {
      const Index end = std::min(segment.size, (b + 1) * block);
      for (Index i = b * block; i < end; ++i) {
        const P g = gradients[i] * scale;
        m[i] = b1 * m[i] + (one - b1) * g;
        v[i] = b2 * v[i] + (one - b2) * g * g;
        values[i] = keep * values[i] - step * (m[i] * correction1) / (sqrt(v[i] * correction2) + epsilon);
      }
    });
  }
}

/// Sum of squares of an array, in double, in an order that does not depend on the number of threads.
template <RowContext C, class P>
double sum_of_squares(C& context, const Array<P>& values) {
  constexpr Index block = 4096;
  const auto frame = context.frame();
  auto partial = context.template make<double>(ceil_div(values.size(), block), 1);
  const Rows<double> sums = partial;
  context.for_rows(sums.rows, block, [&](Index b) {
    double lanes[8] = {};  // eight running sums: a plain loop would wait for each addition
    const Index begin = b * block, end = std::min(values.size(), begin + block);
    Index i = begin;
    for (; i + 8 <= end; i += 8) {
      for (Index l = 0; l < 8; ++l) {
        const auto x = static_cast<double>(values[i + l]);
        lanes[l] += x * x;
      }
    }
    for (; i < end; ++i) lanes[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    sums(b, 0) = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
  });
  double total = 0;
  for (Index b = 0; b < sums.rows; ++b) total += sums(b, 0);
  return total;
}

/// How many of predicted[i] are labels[i].
template <RowContext C>
double count_equal(C&, std::span<const Token> predicted, std::span<const Token> labels) {
  Index right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) right += predicted[i] == labels[i] ? 1 : 0;
  return static_cast<double>(right);
}

}  // namespace coyote::inline v0
