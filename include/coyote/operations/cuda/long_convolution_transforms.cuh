// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/operations/cuda/long_convolution_spectral.cuh"

/// Long convolutions and their gradients by transforms, channel-major, any length. Up to 2^14 points (2^13 for gradients) a
/// block transforms a row in its shared memory. Longer rows walk the upper levels of the tree in passes over device memory and
/// the lower 12 in shared memory, chunk by chunk, so that scratch memory stays bounded.
///
/// Cost per point and row: about 3 multiply-adds per level forward and 4 back. Bytes: each row once in and out, 8 per
/// channel's point for the filter's spectrum, read again per row (from cache); with passes, 16 per point and pass in the cache.
namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution {

/// The plan of a convolution with transforms of 2^log points.
struct TransformPlan {
  int log = 7;
  int block = 7;                ///< levels in a block's shared memory
  int passes = 0;               ///< passes over device memory before
  int levels(int pass) const {  // the upper levels in even parts, larger ones first
    int left = log - block, parts = passes;
    for (int i = 0; i < pass; ++i) {
      left -= (left + parts - 1) / parts;
      --parts;
    }
    return (left + parts - 1) / parts;
  }
  Index points() const { return Index{1} << log; }
  Index nodes() const { return Index{1} << (log - block); }

  friend bool operator==(const TransformPlan&, const TransformPlan&) = default;
};

/// Calls use(std::integral_constant<int, log>), Log <= log <= Most.
template <int Most, int Log, class Use>
void with_log(int log, Use&& use) {
  if constexpr (Log < Most) {
    if (log != Log) return with_log<Most, Log + 1>(log, use);
  }
  use(std::integral_constant<int, Log>{});
}

/// Runs long convolutions by transforms of at least 2^Least points for one shape; scratch lives in the frame of the caller.
template <int Least>
class Transforms {
 public:
  /// Bytes of complex points per chunk of long rows.
  static constexpr Index chunk_bytes = Index{512} << 20;

  Transforms(Context<Cuda>& context, const Lines& lines, Index width) : context_(context), lines_(lines), width_(width) {}

  /// y = taps * x, causal along each line; adjoint: y[j] = sum_t taps[t] x[j + t]. x and y may be the same.
  void convolve(const Values& x, const LineTaps& taps, const Values& y, bool adjoint) {
    const TransformPlan plan = choose<14>(transform_bytes);
    if (plan.passes == 0) {
      SpectralWork work = filter(plan, 0, width_, taps);
      work.x = x;
      work.y = y;
      work.conjugate = adjoint;
      with_log<14, Least>(plan.log, [&](auto log) { launch_transform<log(), true>(work, lines_.sequences); });
      return;
    }
    each_chunk(plan, taps, [&](SpectralWork& work, const Lines& part, Index c0, Index channels, Index first_element) {
      const auto frame = context_.frame();
      Complex* const z = points(part.sequences * channels * plan.points());
      down(plan, part, channels, x.from(first_element + c0 * lines_.channel_pitch), z);
      work.x = work.y = {z, false};
      work.conjugate = adjoint;
      launch_transform<block_log, false>(work, part.sequences);
      up(plan, part, channels, y.from(first_element + c0 * lines_.channel_pitch), false, z);
    });
  }

  /// dx[j] = sum_t taps[t] d[j + t], unless dx.data is null; gradient[t] += sum over sequences and i of d[i] x[i - t], unless
  /// gradient.data is null.
  void gradients(const Values& x, const LineTaps& taps, const Values& d, const Values& dx, const TapGradient& gradient) {
    const bool wants_lags = gradient.data != nullptr, wants_dx = dx.data != nullptr;
    if (!wants_lags) {
      if (wants_dx) convolve(d, taps, dx, true);
      return;
    }
    const TransformPlan plan = choose<13>(gradient_bytes);
    if (plan.passes == 0) {
      const auto frame = context_.frame();
      SpectralWork work = filter(plan, 0, wants_dx ? width_ : 0, taps);
      int together = 1;
      with_log<13, Least>(plan.log, [&](auto log) { together = FftShape<log()>::together; });
      const int groups = groups_of(taps, lines_.sequences, width_, together);
      const Rows<float> lags = context_.make<float>(groups * width_, lines_.longest());
      work.width = static_cast<int>(width_);
      work.x = x;
      work.d = d;
      work.dx = dx;
      work.lags = lags.data;
      work.groups = groups;
      with_log<13, Least>(plan.log, [&](auto log) { launch_gradient<log(), true>(work); });
      add_lags(groups, width_, lags.data, taps, gradient);
      return;
    }
    each_chunk(plan, taps, [&](SpectralWork& work, const Lines& part, Index c0, Index channels, Index first_element) {
      const auto frame = context_.frame();
      const Index offset = first_element + c0 * lines_.channel_pitch;
      Complex* const zx = points(part.sequences * channels * plan.points());
      Complex* const zd = points(part.sequences * channels * plan.points());
      const int groups = groups_of(taps, part.sequences, work.width, 1);
      Complex* const sums = points(groups * channels * plan.points());
      const Rows<float> lags = context_.make<float>(groups * channels, lines_.longest());
      down(plan, part, channels, x.from(offset), zx);
      down(plan, part, channels, d.from(offset), zd);
      work.x = {zx, false};
      work.d = {zd, false};
      work.dx = {wants_dx ? zd : nullptr, false};
      work.lags = reinterpret_cast<float*>(sums);
      work.groups = groups;
      launch_gradient<block_log, false>(work);
      if (wants_dx) up(plan, part, channels, dx.from(offset), false, zd);
      Lines summed = part;
      summed.sequences = groups;
      up(plan, summed, channels, Values::of(lags.data), true, sums);
      add_lags(groups, channels, lags.data, taps, gradient.from(c0), &part);
    });
  }

  /// gradient += the sums of lags [groups][width][longest] over groups; `lines` are those of the groups' sequences.
  void add_lags(int groups, Index width, const float* lags, const LineTaps& taps, const TapGradient& gradient,
                const Lines* lines = nullptr) {
    const dim3 grid(static_cast<unsigned>(ceil_div(gradient.count, 32)), static_cast<unsigned>(ceil_div(width, 32)));
    auto* const kernel = gradient.tap_pitch == 1 ? add_lags_kernel<true> : add_lags_kernel<false>;
    kernel<<<grid, dim3(32, 8), 0, context_.stream()>>>(lines != nullptr ? *lines : lines_, static_cast<int>(width), groups, lags,
                                                        taps.per_sequence, gradient);
    COYOTE_CUDA_CHECK_LAUNCH("add_lags_kernel");
  }

 private:
  static constexpr int block_log = 12;
  static int transform_bytes(int log) {
    int bytes = 0;
    with_log<14, Least>(log, [&](auto l) { bytes = transform_shared_memory<l()>(); });
    return bytes;
  }
  static int gradient_bytes(int log) {
    int bytes = 0;
    with_log<13, Least>(log, [&](auto l) { bytes = gradient_shared_memory<l()>(); });
    return bytes;
  }

  /// The smallest transform that holds a line; in one block if it has at most 2^Most points and the device the memory.
  template <int Most, class Bytes>
  TransformPlan choose(Bytes&& bytes) const {
    TransformPlan plan;
    plan.log = Least;
    while (plan.points() < lines_.longest()) ++plan.log;
    plan.block = plan.log;
    if (plan.log > Most || (plan.log > block_log && bytes(plan.log) > context_.limits().shared_memory)) {
      plan.block = block_log;
      const int above = plan.log - block_log;
      plan.passes = above <= 8 ? 1 : (above + 4) / 5;
    }
    return plan;
  }
  Complex* points(Index count) { return context_.make<Complex>(1, count).data; }
  /// Groups of `sequences` sequences, so many that blocks of `together` rows fill the device a few times over.
  int groups_of(const LineTaps& taps, Index sequences, Index rows_per_group, Index together) const {
    if (taps.per_sequence) return static_cast<int>(sequences);
    const Index wanted = ceil_div(Index{12} * context_.limits().multiprocessors * together, rows_per_group);
    const Index per_group = ceil_div(sequences, std::min<Index>({wanted, sequences, 32}));
    return static_cast<int>(ceil_div(sequences, per_group));
  }

  template <class Kernel>
  void allow_shared_memory(Kernel* kernel, int bytes) {
    if (bytes > 48 << 10) {
      COYOTE_CUDA_CHECK(
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
  }
  template <int Log, bool Real>
  void launch_transform(const SpectralWork& work, Index sequences) {
    using Shape = FftShape<Log>;
    const Index rows = sequences * work.width;
    if (rows == 0) return;
    allow_shared_memory(transform_kernel<Log, Real>, transform_shared_memory<Log>());
    transform_kernel<Log, Real><<<static_cast<unsigned>(ceil_div(rows, Shape::together)), dim3(Shape::threads, Shape::together),
                                  transform_shared_memory<Log>(), context_.stream()>>>(work);
    COYOTE_CUDA_CHECK_LAUNCH("transform_kernel");
  }
  template <int Log, bool Real>
  void launch_gradient(const SpectralWork& work) {
    using Shape = FftShape<Log>;
    const Index rows = Index{work.groups} * work.width;
    allow_shared_memory(gradient_kernel<Log, Real>, gradient_shared_memory<Log>());
    gradient_kernel<Log, Real><<<static_cast<unsigned>(ceil_div(rows, Shape::together)), dim3(Shape::threads, Shape::together),
                                 gradient_shared_memory<Log>(), context_.stream()>>>(work);
    COYOTE_CUDA_CHECK_LAUNCH("gradient_kernel");
  }

  /// Work on `channels` channels from c0 on, with the spectra of their filter divided by the number of points.
  SpectralWork filter(const TransformPlan& plan, Index c0, Index channels, const LineTaps& taps) {
    Lines rows;
    rows.offsets = taps.per_sequence ? lines_.offsets : nullptr;
    rows.sequences = taps.per_sequence ? lines_.sequences : 1;
    rows.length = taps.count;
    rows.channel_pitch = taps.channel_pitch;
    SpectralWork work;
    work.lines = rows;
    work.width = static_cast<int>(channels);
    work.scale = 1.0f / static_cast<float>(plan.points());
    Complex* const spectra = points(rows.sequences * channels * plan.points());
    const Values from = Values::of(taps.data + c0 * taps.channel_pitch);
    if (plan.passes == 0) {
      work.x = from;
      work.spectra = spectra;
      with_log<14, Least>(plan.log, [&](auto log) { launch_transform<log(), true>(work, rows.sequences); });
    } else {
      down(plan, rows, channels, from, spectra);
      as_nodes(plan, work, channels);
      work.x = {spectra, false};
      work.spectra = spectra;  // each block reads a node, and then writes its spectrum
      launch_transform<block_log, false>(work, rows.sequences);
    }
    work.lines = lines_;
    work.spectra = nullptr;
    work.filter = spectra;
    work.filter_sequence = taps.per_sequence ? channels * plan.points() : 0;
    return work;
  }
  static void as_nodes(const TransformPlan& plan, SpectralWork& work, Index channels) {
    work.nodes = static_cast<int>(plan.nodes());
    work.level = plan.log - plan.block;
    work.width = static_cast<int>(channels * plan.nodes());
  }

  /// Calls use(work, lines of the chunk's sequences, first channel, channels, first element) chunk by chunk; the filter's
  /// spectra are made once per chunk of channels.
  template <class Use>
  void each_chunk(const TransformPlan& plan, const LineTaps& taps, Use&& use) {
    const Index rows = std::max<Index>(1, chunk_bytes / (plan.points() * static_cast<Index>(sizeof(Complex))));
    // Packed sequences stay together: only the device knows where they begin.
    const Index sequences = lines_.offsets != nullptr ? lines_.sequences : std::min<Index>(lines_.sequences, rows);
    const Index channels = std::min(width_, std::max<Index>(1, rows / sequences));
    for (Index c0 = 0; c0 < width_; c0 += channels) {
      const auto frame = context_.frame();
      const Index count = std::min(channels, width_ - c0);
      SpectralWork work = filter(plan, c0, count, taps);
      as_nodes(plan, work, count);
      for (Index s0 = 0; s0 < lines_.sequences; s0 += sequences) {
        work.lines.sequences = static_cast<int>(std::min(sequences, lines_.sequences - s0));
        use(work, work.lines, c0, count, s0 * lines_.sequence_pitch);
      }
    }
  }

  /// The upper levels of the tree for all rows of `channels` channels; z is [sequences][channels][points].
  void down(const TransformPlan& plan, const Lines& lines, Index channels, const Values& from, Complex* z) {
    int level = 0;
    for (int pass = 0; pass < plan.passes; ++pass) {
      launch_pass<true>(plan, lines, channels, level, plan.levels(pass), from, false, z);
      level += plan.levels(pass);
    }
  }
  void up(const TransformPlan& plan, const Lines& lines, Index channels, const Values& to, bool as_lags, Complex* z) {
    int level = plan.log - plan.block;
    for (int pass = plan.passes - 1; pass >= 0; --pass) {
      level -= plan.levels(pass);
      launch_pass<false>(plan, lines, channels, level, plan.levels(pass), to, as_lags, z);
    }
  }
  template <bool Down>
  void launch_pass(const TransformPlan& plan, const Lines& lines, Index channels, int level, int levels, const Values& rows,
                   bool as_lags, Complex* z) {
    if (levels > 5) return launch_wide_pass<Down>(plan, lines, channels, levels, rows, as_lags, z);
    const Index butterflies = (lines.sequences * channels) << (plan.log - levels);
    const auto launch = [&](auto p, auto real) {
      pass_kernel<p(), real(), Down><<<static_cast<unsigned>(ceil_div(butterflies, 256)), 256, 0, context_.stream()>>>(
          lines, static_cast<int>(channels), plan.log, level, rows, as_lags, z);
      COYOTE_CUDA_CHECK_LAUNCH("pass_kernel");
    };
    const auto with_levels = [&](auto real) {
      if constexpr (real()) {  // later passes have three levels or more
        if (levels == 1) launch(std::integral_constant<int, 1>{}, real);
        if (levels == 2) launch(std::integral_constant<int, 2>{}, real);
      }
      if (levels == 3) launch(std::integral_constant<int, 3>{}, real);
      if (levels == 4) launch(std::integral_constant<int, 4>{}, real);
      if (levels == 5) launch(std::integral_constant<int, 5>{}, real);
    };
    if (level == 0) {
      with_levels(std::true_type{});
    } else {
      with_levels(std::false_type{});
    }
  }
  template <bool Down>
  void launch_wide_pass(const TransformPlan& plan, const Lines& lines, Index channels, int levels, const Values& rows,
                        bool as_lags, Complex* z) {
    const auto launch = [&](auto q) {
      const Index blocks = (lines.sequences * channels) << (plan.log - 12);
      wide_pass_kernel<q(), Down><<<static_cast<unsigned>(blocks), 256, 0, context_.stream()>>>(lines, static_cast<int>(channels),
                                                                                                plan.log, rows, as_lags, z);
      COYOTE_CUDA_CHECK_LAUNCH("wide_pass_kernel");
    };
    if (levels == 6) launch(std::integral_constant<int, 2>{});
    if (levels == 7) launch(std::integral_constant<int, 3>{});
    if (levels == 8) launch(std::integral_constant<int, 4>{});
  }

  Context<Cuda>& context_;
  Lines lines_;
  Index width_;
};

}  // namespace coyote::inline v0::cuda::inline COYOTE_CUDA_ARCHITECTURES::convolution
