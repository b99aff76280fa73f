// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/context.hpp"

namespace coyote::inline v0 {

/// How a training step is carried out on a backend: at once on the host; on a device the same launches, captured as a graph
/// when they come again.
template <class Backend>
class StepRunner {
 public:
  /// Brings the batch of a coming step to where operations read it, while an earlier step may still be under way.
  /// @param step  number of the step, which names its random draws
  /// @param rate  its learning rate, for backends that replay what they were told before
  void prepare(Context<Backend>&, const Batch&, std::uint64_t /*step*/, double /*rate*/) {}
  /// Calls work(batch), with the batch that was prepared last where operations read it. The work may still be under way when
  /// this returns.
  template <class Work>
  void run(Context<Backend>& context, const Batch& batch, std::uint64_t step, double /*rate*/, Work&& work) {
    context.step = step;
    work(batch);
  }
};

}  // namespace coyote::inline v0
