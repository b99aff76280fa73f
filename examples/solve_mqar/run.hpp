// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <coyote/tasks/mqar.hpp>
#include <coyote/training/fit.hpp>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

/// What the units of solve_mqar agree on: main.cpp reads the options and reports, the others each train some architectures on
/// one backend. No unit needs another's types.
namespace solve_mqar {

struct Settings {
  std::string preset = "default", backend = "cpu";
  std::vector<std::string> models;
  coyote::MqarOptions task;
  coyote::Index width = 64, batch = 128;
  double rate = 3e-3, weight_decay = 0.1, dropout = 0, attention_dropout = 0, clip = 0;
  std::uint64_t steps = 1000;   ///< of the attention models
  std::uint64_t patience = 5;   ///< the convolution alone gets this many times the steps of the slowest other
  std::uint64_t epoch = 0;      ///< sequences of a fixed training set; 0: new ones in every step
  bool rate_per_epoch = false;  ///< the cosine changes once per epoch
  bool stop_on_test = false;    ///< the paper's early stop looks at the test set
  std::uint64_t evaluate_every = 25;
  coyote::Index validation = 512, test = 3000;
  double stop_above = 0.99;
  std::uint64_t seed = 1;
  coyote::Index threads = 0;
  std::string checkpoints;  ///< folder; empty: none are written
  bool resume = false;
};

/// What became of one model.
struct Outcome {
  std::string name, architecture;
  coyote::Index parameters = 0, state_scalars = 0, state_integers = 0;
  std::uint64_t steps = 0;
  coyote::FitResult fit;
  coyote::Evaluation test;
};

/// Called after every update: steps done, steps at most, loss of the last step, latest validation accuracy (-1: none yet).
/// Returns false to pause.
using Monitor = std::function<bool(std::uint64_t, std::uint64_t, double, double)>;

/// One model to train: by which name, how, and where the result goes.
struct Job {
  const std::string& name;
  const Settings& settings;
  std::uint64_t steps;  ///< updates at most
  const Monitor& monitor;
  Outcome& out;
};

/// Each trains the job's model; false if it does not know the name. Compiled for Cpu, and for Cuda if the program is built with
/// it.
template <class Backend>
bool train_attention(const Job&);
template <class Backend>
bool train_convolution(const Job&);
template <class Backend>
bool train_paper_attention(const Job&);
template <class Backend>
bool train_paper_coyote(const Job&);
template <class Backend>
bool train_paper_hyena(const Job&);
template <class Backend>
bool train_paper_h3(const Job&);
template <class Backend>
bool train_paper_rwkv(const Job&);

/// The settings that a run's numbers depend on, for results and checkpoints.
nlohmann::json to_json(const Settings&);
nlohmann::json to_json(const coyote::FitResult&);
coyote::FitResult fit_result_from(const nlohmann::json&);

}  // namespace solve_mqar
