// SPDX-License-Identifier: Apache-2.0
#include "coyote/core/workers.hpp"

#include <doctest/doctest.h>

#include <string>

namespace cy = coyote;

TEST_CASE("every block runs once, whatever the number of threads") {
  for (cy::Index threads = 1; threads <= 4; ++threads) {
    cy::Workers workers(threads);
    CHECK(workers.threads() == threads);
    for (const cy::Index blocks : {0, 1, 2, 3, 7, 64, 1000}) {
      for (int repeat = 0; repeat < 20; ++repeat) {
        std::vector<std::atomic<int>> count(static_cast<std::size_t>(blocks));
        std::atomic<bool> known_worker{true};
        workers.run(blocks, [&](cy::Index block, cy::Index worker) {
          count[static_cast<std::size_t>(block)].fetch_add(1);
          if (worker < 0 || worker >= threads) known_worker = false;
        });
        bool once = true;
        for (const auto& c : count) once = once && c.load() == 1;
        REQUIRE(once);
        REQUIRE(known_worker.load());
      }
    }
  }
}

TEST_CASE("an exception reaches the caller, and the crew works on") {
  for (cy::Index threads = 1; threads <= 4; ++threads) {
    cy::Workers workers(threads);
    for (int repeat = 0; repeat < 20; ++repeat) {
      CHECK_THROWS_WITH_AS(workers.run(50,
                                       [&](cy::Index block, cy::Index) {
                                         if (block % 10 == 3) throw cy::Error("block", "another", "13");
                                       }),
                           "block: required another, came 13", cy::Error);
      std::atomic<int> count{0};
      workers.run(50, [&](cy::Index, cy::Index) { ++count; });
      CHECK(count.load() == 50);
    }
  }
}

TEST_CASE("what a block writes is seen by the caller") {
  cy::Workers workers(3);
  std::vector<int> plain(257);
  for (int round = 1; round <= 200; ++round) {
    workers.run(257, [&](cy::Index block, cy::Index) { plain[static_cast<std::size_t>(block)] = round; });
    bool all = true;
    for (const int x : plain) all = all && x == round;
    REQUIRE(all);
  }
}

TEST_CASE("a crew wakes up after it slept") {
  cy::Workers workers(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::atomic<int> count{0};
    workers.run(10, [&](cy::Index, cy::Index) { ++count; });
    CHECK(count.load() == 10);
  }
}

TEST_CASE("a crew has at least one thread") {
  CHECK_THROWS_WITH_AS(cy::Workers(0), "Workers: required at least one thread, came 0", cy::Error);
  CHECK_THROWS_AS(cy::Workers(-1), cy::Error);
}
