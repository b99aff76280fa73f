// SPDX-License-Identifier: Apache-2.0
// Parts of one's own: a mixer, a filter, an attention pattern and a selector, one specialisation each. They then train in one
// language model, side by side with built-in parts, and are checked as those are: gradients and decoding.

#include <cmath>
#include <coyote/coyote.hpp>
#include <cstdio>

namespace mine {

// [mixer]
/// y_i = a y_(i-1) + (1 - a) u_i per channel, a = 1 / (1 + exp(-rate)): an exponential moving average with a trained rate.
struct MovingAverage {
  using Parts = coyote::Types<>;
  struct Options {
    coyote::Init rate = coyote::Init::normal(1);
  };
  static constexpr bool is_causal = true, is_input_dependent = false, state_is_bounded = true;
  static constexpr coyote::Degree degree = 1;
  static constexpr coyote::Index output_width(coyote::Index width) { return width; }
  static constexpr coyote::Cost cost(coyote::Dimensions dims, const Options&, coyote::Index) {
    const coyote::Index all = dims.length * dims.width;
    return {.parameters = dims.width,
            .multiplications = 2 * all,
            .additions = all,
            .functions = 2 * dims.width,
            .state_scalars = dims.width};
  }
};
// [mixer]

// [filter]
/// taps[t] = gain^k at lags t = k * delay, 0 at all others: echoes that fade, by one trained number per channel.
struct EchoFilter {
  struct Options {
    coyote::Index delay = 2;
    coyote::Init gain = coyote::Init::constant(0.5);
  };
  static constexpr bool state_is_bounded = false;
  static constexpr coyote::Index state_scalars(coyote::Index channels, coyote::Index length, const Options&) {
    return channels * length;
  }
  static constexpr coyote::Cost cost(coyote::Index channels, coyote::Index length, const Options& options) {
    return {.parameters = channels, .multiplications = channels * ((length - 1) / options.delay)};
  }
};
// [filter]

// [pattern]
/// Row i sees itself and the rows 1, 3, 5, ... before it: half of the keys.
struct EveryOtherBack {
  static constexpr bool uses_tokens = false;
  static constexpr coyote::Index index_size(coyote::Index) { return 0; }
  static constexpr void append(std::span<std::int32_t>, std::span<const coyote::Token>, coyote::Index) {}
  template <class F>
  static constexpr void for_each_key(std::span<const std::int32_t>, coyote::Index, coyote::Index i, F&& f) {
    f(i);
    for (coyote::Index j = i - 1; j >= 0; j -= 2) f(j);
  }
  static constexpr coyote::Index max_pairs(coyote::Index length) { return length + (length / 2) * ((length + 1) / 2); }
  static constexpr coyote::Index max_rows(coyote::Index length) { return length; }
};
// [pattern]

// [selector]
/// Keeps the rows whose channel 0 is positive: score sigmoid(u_0), without parameters, so that layers before it learn to vote.
struct FirstChannelVotes {
  struct Options {};
  static constexpr bool is_causal = true;
  static constexpr coyote::Index rows(coyote::Index length, const Options&) { return length; }
  static constexpr coyote::Cost cost(coyote::Dimensions dims, const Options&) { return {.functions = dims.length}; }
};
// [selector]

}  // namespace mine

namespace coyote {

// [layer]
template <class Backend, class S>
requires is_real<S>
class Layer<mine::MovingAverage, Backend, S> {
  using P = parameter_t<S>;

 public:
  struct Saved {
    Rows<const S> u;
    Tensor<Backend, S> y;
  };
  struct State {
    Matrix<P> average;
    constexpr StateSize size() const { return {.scalars = average.width()}; }
  };

  Layer(Dimensions dims, const mine::MovingAverage::Options& options, Path path)
      : path_(path), rate_(1, dims.width, options.rate, false) {
    require_dimensions(path, dims);
  }
  template <class V>
  void visit(V& v) {
    visit_parameter(v, path_ / "rate", rate_);
  }
  Index output_width() const { return rate_.columns; }

  void forward(Context<Backend>& context, const Batch& batch, Rows<const S> u, Rows<S> y, Saved& saved) const {
    require_views(path_, batch.rows(), u, rate_.columns, y, rate_.columns);
    saved.u = u;
    if (context.training()) saved.y = context.template make<S>(u.rows, u.width);  // y itself may change after this call
    const Rows<S> kept = saved.y;
    context.for_rows(batch.sequences, batch.length * u.width, [&](Index s) {  // sequences do not depend on each other
      for (Index i = batch.begin(s); i < batch.end(s); ++i) {
        for (Index c = 0; c < u.width; ++c) {
          const P a = decay(c), before = i == batch.begin(s) ? P{} : static_cast<P>(y(i - 1, c));
          y(i, c) = static_cast<S>(a * before + (P{1} - a) * static_cast<P>(u(i, c)));
          if (kept.data != nullptr) kept(i, c) = y(i, c);
        }
      }
    });
  }
  /// With g_i = dy_i + a g_(i+1): du_i = (1 - a) g_i, da = sum_i g_i (y_(i-1) - u_i), drate = a (1 - a) da.
  void backward(Context<Backend>& context, const Batch& batch, Rows<const S> dy, Rows<S> du, Write write, Saved& saved) const {
    const auto frame = context.frame();
    Tensor<Backend, P> made = context.template make<P>(1, dy.width);
    const Rows<P> drate = made;
    const Rows<const S> u = saved.u, y = saved.y;
    clear<P>(context, drate);
    context.sum_rows(batch.sequences, drate, [&](Index s, P* sums) {
      for (Index c = 0; c < dy.width; ++c) {
        const P a = decay(c);
        P g{};
        for (Index i = batch.end(s) - 1; i >= batch.begin(s); --i) {
          g = static_cast<P>(dy(i, c)) + a * g;
          const P before = i == batch.begin(s) ? P{} : static_cast<P>(y(i - 1, c));
          sums[c] += a * (P{1} - a) * g * (before - static_cast<P>(u(i, c)));
          write_to<S>(du(i, c), static_cast<S>((P{1} - a) * g), write);
        }
      }
    });
    if (rate_.trains()) assign<P>(context, drate, rate_.gradient, Write::add);
  }

  State make_state(StateBounds bounds) const { return {{bounds.sequences, rate_.columns}}; }
  void step(Context<Backend>&, State& state, const Step&, Rows<const S> u, Rows<S> y) const {
    require_views(path_, state.average.rows(), u, rate_.columns, y, rate_.columns);
    for (Index s = 0; s < u.rows; ++s) {
      for (Index c = 0; c < u.width; ++c) {
        state.average(s, c) = decay(c) * state.average(s, c) + (P{1} - decay(c)) * static_cast<P>(u(s, c));
        y(s, c) = static_cast<S>(state.average(s, c));
      }
    }
  }

 private:
  P decay(Index c) const { return P{1} / (P{1} + std::exp(-rate_.value(0, c))); }

  Path path_;
  Parameter<P> rate_;
};
// [layer]

// [taps]
template <class Backend, class S>
class Taps<mine::EchoFilter, Backend, S> {
  using P = parameter_t<S>;

 public:
  using Saved = NothingSaved;

  Taps(Index channels, Index, const mine::EchoFilter::Options& options, Path path)
      : path_(path), delay_(options.delay), gain_(1, channels, options.gain) {
    if (delay_ < 1) throw Error(std::string(path.view()), "a delay of at least one row", words(delay_));
  }
  template <class V>
  void visit(V& v) {
    visit_parameter(v, path_ / "gain", gain_);
  }
  void generate(Context<Backend>& context, Rows<P> taps, Saved&) const {
    clear<P>(context, taps);
    for (Index c = 0; c < taps.width; ++c) {
      P power{1};
      for (Index t = 0; t < taps.rows; t += delay_, power *= gain_.value(0, c)) taps(t, c) = power;
    }
  }
  void backward(Context<Backend>&, Rows<const P> dtaps, Saved&) const {
    if (!gain_.trains()) return;
    for (Index c = 0; c < dtaps.width; ++c) {
      P power{1};  // gain^(k-1), for lag k * delay
      for (Index k = 1; k * delay_ < dtaps.rows; ++k, power *= gain_.value(0, c)) {
        gain_.gradient(0, c) += static_cast<P>(k) * power * dtaps(k * delay_, c);
      }
    }
  }

 private:
  Path path_;
  Index delay_;
  Parameter<P> gain_;
};
// [taps]

// [picker]
template <class Backend, class S>
requires is_real<S>
class Picker<mine::FirstChannelVotes, Backend, S> {
 public:
  struct Saved {
    Rows<const S> f;
  };

  Picker(Dimensions, const mine::FirstChannelVotes::Options&, Path) {}
  template <class V>
  void visit(V&) {}
  void score(Context<Backend>&, const Batch&, Rows<const S> u, Rows<S> f, Saved& saved) const {
    saved.f = f;
    for (Index i = 0; i < u.rows; ++i) f(i, 0) = S{1} / (S{1} + std::exp(-u(i, 0)));
  }
  void backward(Context<Backend>& context, const Batch&, Rows<S> df, Rows<S> du, Write write, Saved& saved) const {
    if (write == Write::overwrite) clear<S>(context, du);
    if (write == Write::none) return;
    for (Index i = 0; i < du.rows; ++i) du(i, 0) += saved.f(i, 0) * (S{1} - saved.f(i, 0)) * df(i, 0);
  }
  void penalise(Context<Backend>&, const Batch&, Rows<const S>) const {}
  void penalise_backward(Context<Backend>&, const Batch&, Rows<const S>, Rows<S>) const {}
  void pick(Context<Backend>&, const Batch& batch, Rows<const S> f, Rows<unsigned char> picked) const {
    for (Index i = 0; i < batch.rows(); ++i) picked(i, 0) = f(i, 0) > S{1} / S{2};
  }
};
// [picker]

}  // namespace coyote

namespace {

namespace cy = coyote;

// [model]
using Mine = cy::Chain<cy::Block<cy::Coyote<cy::ShortConv<3>>>,
                       cy::Block<cy::Select<mine::FirstChannelVotes, cy::Attention<cy::Heads<1>, mine::EveryOtherBack>>>,
                       cy::Block<cy::Sum<mine::MovingAverage, cy::LongConv<mine::EchoFilter>>>>;
static_assert(cy::is_causal<Mine> && cy::is_input_dependent<Mine> && cy::state_is_bounded<cy::Block<mine::MovingAverage>>);
template <class S>
using Lm = cy::LanguageModel<Mine, cy::Cpu, S>;
// [model]

/// |slope along a random direction - its finite difference|, relative to the latter: all gradients at once, in double.
double gradient_error(const cy::Batch& batch) {
  Lm<double> model({.vocabulary = 32, .width = 8, .length = 16, .embedding = cy::Init::normal(1)}, cy::Seed{3});
  cy::Context<cy::Cpu> context;
  typename Lm<double>::Saved saved;
  model.enable_gradients();
  model.loss_and_gradients(context, batch, saved);
  const cy::Stream draws(cy::Seed{4}, cy::Purpose::test);
  const cy::ModeScope mode(context, cy::Mode::training);  // the selector weighs rows in training and picks them afterwards
  cy::Array<double>& values = model.parameters().values();
  const cy::Array<double> start = values;
  double slope = 0, loss[2];
  for (int side = 0; side < 2; ++side) {
    for (cy::Index i = 0; i < values.size(); ++i) {
      const double direction = draws.normal(static_cast<std::uint64_t>(i));
      values[i] = start[i] + (side == 0 ? 1e-5 : -1e-5) * direction;
      if (side == 0) slope += direction * model.parameters().gradients()[i];
    }
    loss[side] = model.loss(context, batch);
  }
  const double difference = (loss[0] - loss[1]) / 2e-5;
  return std::abs(slope - difference) / std::abs(difference);
}

/// The largest |difference| between the logits of a forward pass and those of decoding token by token.
double decoding_error(const Lm<float>& model, const cy::Batch& batch) {
  cy::Context<cy::Cpu> context;
  const cy::Batch one{.sequences = 1, .length = batch.length, .tokens = batch.tokens_of(0)};
  cy::Matrix<float> logits(one.rows(), 32), now(1, 32);
  model.logits(context, one, logits);
  auto state = model.make_state({.sequences = 1, .capacity = one.length});
  float worst = 0;
  for (cy::Index i = 0; i < one.rows(); ++i) {
    model.step(context, state, one.tokens.subspan(static_cast<std::size_t>(i), 1), now);
    for (cy::Index c = 0; c < 32; ++c) worst = std::max(worst, std::abs(now(0, c) - logits(i, c)));
  }
  return static_cast<double>(worst);
}

}  // namespace

int main() {
  const cy::Mqar task({.vocabulary = 32, .length = 16, .pairs = 2}, cy::Seed{1});
  cy::LabelledBatch data;
  cy::fill(task, cy::Split::validation, 0, 16, data);
  const double gradients = gradient_error(data.view());

  // [train]
  cy::Context<cy::Cpu> context;
  Lm<float> model({.vocabulary = 32, .width = 32, .length = 16}, cy::Seed{1});
  cy::Trainer trainer(model, context, {.adamw = {.rate = 5e-3}, .schedule = {.steps = 200}});
  cy::fit(trainer, task, {.steps = 200, .batch = 64, .evaluate_every = 40},
          [](const cy::StepReport&, std::uint64_t step, const cy::FitResult& so_far, bool look) {
            if (look) {
              const cy::CurvePoint& p = so_far.curve.back();
              std::printf("step %3d: loss %.3f, accuracy %5.1f %%\n", static_cast<int>(step), p.loss, 100 * p.accuracy);
            }
            return true;  // false would pause
          });
  // [train]

  const double decoding = decoding_error(model, data.view());
  const double accuracy = cy::evaluate(model, context, task, cy::Split::test, 1000, 64).accuracy;
  std::printf("gradient against finite differences: relative error %.1e\n", gradients);
  std::printf("decoding against forward: largest difference of a logit %.1e\n", decoding);
  std::printf("%.1f %% of unseen queries answered right; chance is 50 %%\n", 100 * accuracy);
  return gradients <= 1e-6 && decoding <= 1e-3 && accuracy >= 0.9 ? 0 : 1;
}
