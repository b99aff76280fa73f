// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "coyote/core/parameters.hpp"
#include "coyote/lowering/rules.hpp"
#include "coyote/mixers/dropout.hpp"
#include "coyote/mixers/norm.hpp"
#include "coyote/mixers/positions.hpp"
#include "coyote/operations/embedding.hpp"
#include "coyote/operations/select.hpp"

namespace coyote::inline v0 {

template <class Model>
class Decoder;

/// What a language model is sized for.
template <class LayerOptions>
struct LanguageModelOptions {
  Index vocabulary = 0;  ///< tokens are 0 .. vocabulary - 1
  Index width = 0;       ///< channels
  Index length = 0;      ///< the longest sequence
  double dropout = 0;    ///< rate of dropout on the embedded tokens
  LayerOptions layers = {};
  Init embedding = Init::normal(0.02);
};

/// Loss and accuracy over the labelled rows of a batch, or of several.
struct Evaluation {
  double loss = 0;      ///< mean negative log likelihood in nats
  double accuracy = 0;  ///< share of rows whose arg max over the whole vocabulary is the label
  Index labels = 0;
};

/// Token embedding (plus learned positions, if asked for), a stack of mixers, a final norm, and logits by the transposed
/// embedding: log p(token) = log softmax(E norm(layers(E[tokens] (+ P)))).
/// Cross entropy is evaluated only where there are labels.
///
///     LanguageModel<Hybrid, Cpu, float> model({.vocabulary = 8192, .width = 64, .length = 64}, Seed{1});
///
/// Errors: a mixer that is not causal, or has no layer on this backend, does not compile; sizes, token ids and labels throw.
/// Parameters: `embedding` [vocabulary, width], `positions` [length, width] with Learned, `layers...`, `norm...`.
template <class M, class Backend, class S, class Positions = NoPositions, class FinalNorm = LayerNorm>
class LanguageModel : detail::RequireSupport<M, Backend, S> {
  static_assert(computes_in<Backend, S>, "coyote: Cpu computes in float or double; Reference takes any other ring");
  static_assert(Mixer<M>, "coyote: LanguageModel needs a mixer (core/mixer.hpp says what that is)");
  static_assert(M::is_causal, "coyote: a language model needs a causal mixer: this one reads later rows");
  static_assert(std::same_as<Positions, NoPositions> || std::same_as<Positions, Learned>,
                "coyote: a language model's own positions are NoPositions or Learned; Rotary belongs to Attention");
  static constexpr bool has_positions = std::same_as<Positions, Learned>;
  using Net = Layer<lowered<M, Backend>, Backend, S>;
  using Final = Layer<FinalNorm, Backend, S>;
  using Drop = Layer<Dropout, Backend, S>;
  using P = parameter_t<S>;
  static_assert(std::same_as<typename Final::State, NoState>,
                "coyote: a language model's last norm works row by row: the loss shows it the rows with labels alone");

 public:
  using Scalar = S;
  using BackendType = Backend;
  using Options = LanguageModelOptions<typename M::Options>;

  /// Kept between calls, so that a training step allocates nothing after the first.
  struct Saved {
    Tensor<Backend, S> embedded, mixed, labelled, hidden;
    DropoutRule dropped;
    typename Net::Saved layers;
    typename Final::Saved norm;
  };
  struct State {
    typename Net::State layers;
    typename Final::State norm;
    Index position = 0, sequences = 1, capacity = 0;
    constexpr StateSize size() const { return layers.size() + norm.size(); }
  };

  LanguageModel(const Options& options, Seed seed)
      : options_(checked(options)),
        embedding_(options.vocabulary, options.width, options.embedding),
        positions_(has_positions ? options.length : 0, options.width, options.embedding),
        drop_(dims(), {options.dropout}, "dropout"),
        net_(dims(), options.layers, "layers"),
        norm_({net_.output_width(), options.length}, {}, "norm") {
    if (net_.output_width() != options.width) {
      throw Error("LanguageModel", words("layers that keep the width ", options.width, " (the embedding is tied to the output)"),
                  words(net_.output_width()));
    }
    store_.bind(*this);
    initialise(*this, seed);
  }
  LanguageModel(LanguageModel&& other) noexcept
      : options_(other.options_),
        embedding_(other.embedding_),
        positions_(other.positions_),
        drop_(std::move(other.drop_)),
        net_(std::move(other.net_)),
        norm_(std::move(other.norm_)),
        store_(std::move(other.store_)) {
    store_.rebind(*this);
  }
  LanguageModel& operator=(LanguageModel&&) = delete;

  const Options& options() const { return options_; }
  ParameterStore<P, Backend>& parameters() { return store_; }
  const ParameterStore<P, Backend>& parameters() const { return store_; }
  /// Calls visitor(name, parameter) for every parameter, while the host can read and write it: on a device, in a copy that is
  /// written back.
  template <class V>
  void visit(V& visitor) {
    with_erased<P>(visitor, [this](ParameterVisitor<P>& erased) {
      if (erased.lays_out_memory) return visit_all(erased);
      store_.on_host(*this, [&] { visit_all(erased); });
    });
  }
  void enable_gradients() { store_.enable_gradients(*this); }
  /// Throws unless a labelled batch is one for this model: its arrays agree, and tokens, labels and length are in range.
  void check(const Batch& batch) const {
    check_tokens(batch);
    if (batch.labels.empty()) throw Error("LanguageModel", "a batch with labels", "none");
    check("LanguageModel, label ", batch.labels);
  }

  /// The loss of a batch in the context's mode; nothing is kept for backward. `predicted` and `losses`, one per label, may
  /// be empty; they lie in the backend's memory.
  double loss(Context<Backend>& context, const Batch& batch, std::span<Token> predicted = {},
              std::span<double> losses = {}) const {
    check(batch);
    const auto frame = context.frame();
    const Resident<Backend> resident(context, batch);
    const Batch& here = resident;
    const RoundedParameters<S, Backend> rounded(context, store_);
    Saved saved;
    run_to_labels(context, here, saved);
    return cross_entropy<S>(context, saved.hidden, embedding_.view(), here.resident_labels(), predicted, losses, Rows<S>{},
                            Rows<P>{});
  }

  /// The loss of a training batch, and its gradients added to parameters().gradients(). Auxiliary losses of the layers are
  /// part of what is differentiated, not of the value; the context holds them.
  /// Call enable_gradients() first.
  typename Context<Backend>::Value loss_and_gradients(Context<Backend>& context, const Batch& batch, Saved& saved,
                                                      std::span<Token> predicted = {}) {
    if (batch.device == nullptr) check(batch);  // whoever made it resident did
    if (!embedding_.trains())
      throw Error("LanguageModel", "enable_gradients() before loss_and_gradients()", "a model without gradients");
    const auto frame = context.frame();
    const Resident<Backend> resident(context, batch);
    const Batch& here = resident;
    const RoundedParameters<S, Backend> rounded(context, store_);
    const ModeScope mode(context, Mode::training);
    clear_penalties(context);
    GatheredSums<Backend> sums(context);
    auto order = token_order(context, here.resident_tokens(), options_.vocabulary);
    run_to_labels(context, here, saved);
    const Index width = options_.width, labels = static_cast<Index>(here.labels.size());
    Tensor<Backend, S> dhidden = context.template make<S>(labels, width), dlabelled = context.template make<S>(labels, width);
    const auto loss = cross_entropy<S>(context, saved.hidden, embedding_.view(), here.resident_labels(), predicted, {}, dhidden,
                                       embedding_.gradient);
    Tensor<Backend, S> turns[2] = {context.template make<S>(here.rows(), width), context.template make<S>(here.rows(), width)};
    norm_.backward(context, labelled_rows(here), dhidden, dlabelled, Write::overwrite, saved.norm);
    scatter<S>(context, here.resident_label_rows(), dlabelled, turns[1]);
    net_.backward(context, here, turns[1], turns[0], Write::overwrite, saved.layers);
    embed_batch_backward<S>(context, order, here, saved.dropped, turns[0], embedding_.gradient, positions_.gradient);
    sums.finish();
    return loss;
  }

  /// Logits of every row of a batch, [rows, vocabulary].
  void logits(Context<Backend>& context, const Batch& batch, Rows<P> y) const {
    check_tokens(batch);
    require_shape("LanguageModel::logits", "an output", y, batch.rows(), options_.vocabulary);
    const auto frame = context.frame();
    const Resident<Backend> resident(context, batch);
    const RoundedParameters<S, Backend> rounded(context, store_);
    Saved saved;
    run(context, resident, saved);
    Tensor<Backend, S> normed = context.template make<S>(batch.rows(), options_.width);
    norm_.forward(context, resident, saved.mixed, normed, saved.norm);
    head_logits<S>(context, normed, embedding_.view(), y);
  }

  /// A decoding state for `sequences` sequences of at most `capacity` tokens each.
  State make_state(StateBounds bounds) const {
    if (bounds.sequences < 1) throw Error("LanguageModel::make_state", "at least one sequence", words(bounds.sequences));
    if (bounds.capacity < 1) throw Error("LanguageModel::make_state", "a capacity of at least one token", words(bounds.capacity));
    if (has_positions) require_length("LanguageModel::make_state", bounds.capacity, options_.length);
    return {net_.make_state(bounds), norm_.make_state(bounds), 0, bounds.sequences, bounds.capacity};
  }
  /// Appends one token to every sequence and gives the logits of what comes next, [sequences, vocabulary].
  /// Errors: the state is full; a token out of range.
  void step(Context<Backend>& context, State& state, std::span<const Token> tokens, Rows<P> y) const {
    advance(context, state, tokens, y);
  }
  /// Appends a chunk to a state of one sequence; y, if it has a row, receives the logits after its last token.
  void read(Context<Backend>& context, State& state, std::span<const Token> tokens, Rows<P> y = {}) const {
    if (static_cast<Index>(tokens.size()) > state.capacity - state.position) {
      throw Error("LanguageModel::read", words("at most ", state.capacity - state.position, " more tokens in this state"),
                  words(tokens.size()));
    }
    if (state.sequences != 1) throw Error("LanguageModel::read", "a state of one sequence", words(state.sequences));
    check("LanguageModel, token ", tokens);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      advance(context, state, tokens.subspan(i, 1), i + 1 == tokens.size() ? y : Rows<P>{});
    }
  }

 private:
  template <class Model>
  friend class Decoder;

  static const Options& checked(const Options& options) {
    const auto positive = [](const char* name, Index value) {
      if (value < 1) throw Error("LanguageModel", words(name, " of at least 1"), words(value));
    };
    positive("a vocabulary", options.vocabulary);
    positive("a width", options.width);
    positive("a length", options.length);
    return options;
  }
  void visit_all(ParameterVisitor<P>& visitor) {
    visit_parameter(visitor, "embedding", embedding_);
    if (has_positions) visit_parameter(visitor, "positions", positions_);
    net_.visit(visitor);
    norm_.visit(visitor);
  }
  Dimensions dims() const { return {options_.width, options_.length}; }

  void check_tokens(const Batch& batch) const {
    batch.check("LanguageModel");
    if (batch.tokens.empty()) throw Error("LanguageModel", "a batch with tokens", "none");
    require_length("LanguageModel", batch.length, options_.length);
    check("LanguageModel, token ", batch.tokens);
  }
  void check(const char* what, std::span<const Token> tokens) const {
    // The sign of t or of last - t says whether one is out of range: one pass in SIMD, and only then a search.
    const auto last = static_cast<std::uint32_t>(options_.vocabulary - 1);
    std::uint32_t signs = 0;
    for (const Token token : tokens) signs |= static_cast<std::uint32_t>(token) | (last - static_cast<std::uint32_t>(token));
    if (signs >> 31 == 0) return;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < 0 || tokens[i] >= options_.vocabulary) {
        throw Error(words(what, i), words("a token in 0 .. ", options_.vocabulary - 1), words(tokens[i]));
      }
    }
  }

  /// Everything up to the last norm. Not inlined: both kinds of loss would compile all layers again.
  [[gnu::noinline]] void run(Context<Backend>& context, const Batch& batch, Saved& saved) const {
    const Index rows = batch.rows(), width = options_.width;
    saved.embedded = context.template make<S>(rows, width);
    saved.dropped = drop_.rule(context);
    embed_batch<S>(context, batch, embedding_.view(), positions_.view(), saved.dropped, saved.embedded);
    saved.mixed = context.template make<S>(rows, width);
    net_.forward(context, batch, saved.embedded, saved.mixed, saved.layers);
  }
  /// The last norm of the rows with labels: nothing reads it of others.
  void run_to_labels(Context<Backend>& context, const Batch& batch, Saved& saved) const {
    run(context, batch, saved);
    const Index labels = static_cast<Index>(batch.labels.size());
    saved.labelled = context.template make<S>(labels, options_.width);
    saved.hidden = context.template make<S>(labels, options_.width);
    gather<S>(context, batch.resident_label_rows(), saved.mixed, saved.labelled);
    norm_.forward(context, labelled_rows(batch), saved.labelled, saved.hidden, saved.norm);
  }
  /// The rows with labels, each as a sequence of its own.
  static Batch labelled_rows(const Batch& batch) { return {.sequences = static_cast<Index>(batch.labels.size()), .length = 1}; }
  void check_step(const State& state, std::span<const Token> tokens) const {
    if (state.position >= state.capacity) {
      throw Error("LanguageModel::step", words("at most the ", state.capacity, " tokens that the state was made for"),
                  "one more");
    }
    if (static_cast<Index>(tokens.size()) != state.sequences) {
      throw Error("LanguageModel::step", words("one token for each of ", state.sequences, " sequences"), words(tokens.size()));
    }
    check("LanguageModel, token ", tokens);
  }
  void advance(Context<Backend>& context, State& state, std::span<const Token> tokens, Rows<P> y) const {
    check_step(state, tokens);
    if (y.rows > 0) require_shape("LanguageModel::step", "an output", y, state.sequences, options_.vocabulary);
    const auto frame = context.frame();
    const ModeScope mode(context, Mode::inference);
    const ResidentStep<Backend> resident(context, {state.position, tokens});
    const RoundedParameters<S, Backend> rounded(context, store_);
    run_step(context, state, resident, y);
    ++state.position;
  }
  /// The work of a step, in the context's current frame.
  void run_step(Context<Backend>& context, State& state, const Step& at, Rows<P> y) const {
    Tensor<Backend, S> u = context.template make<S>(state.sequences, options_.width);
    Tensor<Backend, S> mixed = context.template make<S>(state.sequences, options_.width);
    embed<S>(context, at.resident_tokens(), embedding_.view(), u);
    if (has_positions) bias_step<S>(context, at, positions_.view(), u);
    net_.step(context, state.layers, at, u, mixed);
    if constexpr (steps_normalise<Backend, S> && requires { norm_.rule(); }) {
      if (y.rows > 0) head_logits<S>(context, mixed, embedding_.view(), y, norm_.rule());
    } else {
      norm_.step(context, state.norm, at, mixed, u);
      if (y.rows > 0) head_logits<S>(context, u, embedding_.view(), y);
    }
  }

  Options options_;
  Parameter<P> embedding_, positions_;
  Drop drop_;
  Net net_;
  Final norm_;
  ParameterStore<P, Backend> store_;
};

}  // namespace coyote::inline v0
