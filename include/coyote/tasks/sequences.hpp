// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "coyote/core/batch.hpp"
#include "coyote/core/error.hpp"
#include "coyote/core/random.hpp"
#include "coyote/core/types.hpp"

namespace coyote::inline v0 {

/// Which stream of sequences. Sequence i of one split is drawn independently of sequence i of another.
enum class Split : std::uint32_t { training = 0, validation = 1, test = 2 };

/// One labelled sequence, and room for the generator that writes it. Used again and again, it stops allocating.
struct TokenSequence {
  std::vector<Token> tokens;
  std::vector<Index> label_rows;  ///< rows of this sequence that carry a label, ascending from row 0
  std::vector<Token> labels;      ///< what should be predicted at each of label_rows

  /// Workspace of generators. What it holds between two calls means nothing.
  struct Workspace {
    std::vector<Token> tokens;
    std::vector<Index> indices;
    std::vector<std::uint64_t> words;
  } workspace;

  void clear() {
    tokens.clear();
    label_rows.clear();
    labels.clear();
  }
};

/// A generator of labelled sequences. `generate` replaces what `out` holds by sequence `index` of the split; it is a pure
/// function of the task, the split and the index, so batches of any size and any thread see the same sequences.
/// `vocabulary()` bounds the tokens and labels from above (all are below it), `longest()` the rows of a sequence and
/// `most_labels()` its labels; models and buffers are sized by them. A task may also offer `prepare(out)`, which makes room
/// in the workspace for any of its sequences, so that `fill` allocates nothing from its second call on.
template <class T>
concept Task = requires(const T& task, Split split, std::uint64_t index, TokenSequence& out) {
  task.generate(split, index, out);
  { task.vocabulary() } -> std::convertible_to<Index>;
  { task.longest() } -> std::convertible_to<Index>;
  { task.most_labels() } -> std::convertible_to<Index>;
};

/// A batch that owns its tokens and labels. Clearing keeps the storage, so a batch filled again within bounds that it has
/// seen (or that were reserved) does not allocate.
class LabelledBatch {
 public:
  /// Makes room for so many sequences, rows and labels in all.
  void reserve(Index sequences, Index rows, Index labels) {
    offsets_.reserve(static_cast<std::size_t>(sequences) + 1);
    tokens_.reserve(static_cast<std::size_t>(rows));
    label_rows_.reserve(static_cast<std::size_t>(labels));
    labels_.reserve(static_cast<std::size_t>(labels));
  }

  void clear() {
    tokens_.clear();
    offsets_.assign(1, 0);
    label_rows_.clear();
    labels_.clear();
    longest_ = 0;
    uniform_ = true;
  }

  /// Adds a sequence after the others. Throws, and changes nothing, unless it has at least one token and its labels are one
  /// per labelled row, on ascending rows of the sequence.
  void append(const TokenSequence& sequence) {
    const Index rows = static_cast<Index>(sequence.tokens.size());
    if (rows < 1) throw Error("LabelledBatch::append", "a sequence of at least one token", "none");
    if (sequence.labels.size() != sequence.label_rows.size())
      throw Error("LabelledBatch::append", "one label per labelled row",
                  words(sequence.labels.size(), " labels for ", sequence.label_rows.size(), " rows"));
    Index previous = -1;
    for (const Index row : sequence.label_rows) {
      if (row <= previous || row >= rows)
        throw Error("LabelledBatch::append", words("ascending labelled rows in 0 .. ", rows - 1), words("row ", row));
      previous = row;
    }
    if (offsets_.empty()) offsets_.push_back(0);
    const Index base = offsets_.back();
    uniform_ = uniform_ && (longest_ == 0 || rows == longest_);
    longest_ = std::max(longest_, rows);
    tokens_.insert(tokens_.end(), sequence.tokens.begin(), sequence.tokens.end());
    for (const Index row : sequence.label_rows) label_rows_.push_back(base + row);
    labels_.insert(labels_.end(), sequence.labels.begin(), sequence.labels.end());
    offsets_.push_back(base + rows);
  }

  Index sequences() const { return offsets_.empty() ? 0 : static_cast<Index>(offsets_.size()) - 1; }
  Index rows() const { return static_cast<Index>(tokens_.size()); }

  /// The batch as layers see it: packed if lengths differ, otherwise without offsets. Valid until the next change.
  Batch view() const {
    Batch batch;
    batch.sequences = sequences();
    batch.length = longest_;
    if (!uniform_) batch.offsets = offsets_;
    batch.tokens = tokens_;
    batch.label_rows = label_rows_;
    batch.labels = labels_;
    return batch;
  }

  /// A sequence to write into before `append`, kept with the batch so that its storage is used again.
  TokenSequence& draft() { return draft_; }

 private:
  std::vector<Token> tokens_;
  std::vector<Index> offsets_;
  std::vector<Index> label_rows_;
  std::vector<Token> labels_;
  Index longest_ = 0;
  bool uniform_ = true;
  TokenSequence draft_;
};

/// Replaces the batch by sequences first .. first + count - 1 of the split. Allocates on its first call only, as long as
/// count does not grow and the task offers `prepare` or keeps its workspace. Throws unless count >= 1.
template <Task T>
void fill(const T& task, Split split, std::uint64_t first, Index count, LabelledBatch& batch) {
  if (count < 1) throw Error("fill", "a count of at least 1 sequence", words(count));
  batch.clear();
  batch.reserve(count, count * static_cast<Index>(task.longest()), count * static_cast<Index>(task.most_labels()));
  TokenSequence& draft = batch.draft();
  draft.tokens.reserve(static_cast<std::size_t>(task.longest()));
  draft.label_rows.reserve(static_cast<std::size_t>(task.most_labels()));
  draft.labels.reserve(static_cast<std::size_t>(task.most_labels()));
  if constexpr (requires { task.prepare(draft); }) task.prepare(draft);
  for (Index s = 0; s < count; ++s) {
    task.generate(split, first + static_cast<std::uint64_t>(s), draft);
    batch.append(draft);
  }
}

namespace detail {

/// The high 64 bits of the 128-bit product.
constexpr std::uint64_t multiply_high(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t al = a & 0xFFFFFFFFu, ah = a >> 32, bl = b & 0xFFFFFFFFu, bh = b >> 32;
  const std::uint64_t middle = ah * bl + ((al * bl) >> 32);
  const std::uint64_t other = al * bh + (middle & 0xFFFFFFFFu);
  return ah * bh + (middle >> 32) + (other >> 32);
}

/// What part of a task a stream draws. Parts are independent: another filler leaves the pairs as they are.
enum class TaskPart : std::uint64_t { mqar, mqar_filler, mixture, recall, induction };

/// 64-bit words of the stream of one sequence, in order. Decisions use integers only, so they are equal everywhere.
class TaskDraws {
 public:
  constexpr TaskDraws(Seed seed, TaskPart part, Split split, std::uint64_t index)
      : stream_(seed, Purpose::task, static_cast<std::uint64_t>(part) << 8 | static_cast<std::uint64_t>(split), index) {}

  constexpr std::uint64_t word() {
    if (second_) {
      second_ = false;
      return std::uint64_t{block_[3]} << 32 | block_[2];
    }
    block_ = stream_.bits(next_++);
    second_ = true;
    return std::uint64_t{block_[1]} << 32 | block_[0];
  }
  /// Uniform integer below `bound` >= 1; bias below bound / 2^64.
  constexpr std::uint64_t below(std::uint64_t bound) { return multiply_high(word(), bound); }
  /// True with probability `threshold` / 2^53.
  constexpr bool happens(std::uint64_t threshold) { return (word() >> 11) < threshold; }

 private:
  Stream stream_;
  std::array<std::uint32_t, 4> block_{};
  std::uint64_t next_ = 0;
  bool second_ = false;
};

/// A set of small numbers in words lent by the caller.
class SmallSet {
 public:
  static constexpr std::size_t words_for(Index numbers) { return static_cast<std::size_t>((numbers + 63) / 64); }
  SmallSet(std::uint64_t* storage, Index numbers) : storage_(storage) { std::fill_n(storage, words_for(numbers), 0u); }
  bool contains(std::uint64_t number) const { return (storage_[number >> 6] >> (number & 63) & 1) != 0; }
  /// Adds the number; false if it was there.
  bool insert(std::uint64_t number) {
    const std::uint64_t bit = std::uint64_t{1} << (number & 63);
    const bool absent = (storage_[number >> 6] & bit) == 0;
    storage_[number >> 6] |= bit;
    return absent;
  }

 private:
  std::uint64_t* storage_;
};

}  // namespace detail
}  // namespace coyote::inline v0
