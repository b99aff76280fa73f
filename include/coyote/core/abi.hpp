// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/error.hpp"

namespace coyote::inline v0::detail {

/// How a unit of a program was compiled, as far as code that is shared between units depends on it.
struct UnitSettings {
  int vector_bytes = 0;     ///< width of our vector registers
  int eigen_alignment = 0;  ///< EIGEN_MAX_ALIGN_BYTES: follows the instruction set and Eigen's macros

  friend constexpr bool operator==(const UnitSettings&, const UnitSettings&) = default;
};

/// The settings of the first unit that registered, and of the first one that differed from it.
struct UnitRegistry {
  UnitSettings first, different;
};

/// The only mutable global of the library, and why it exists: a linker keeps one copy of each template or inline function,
/// whichever unit it came from. When units of one program differ in their -m flags, Eigen's templates (whose names do not
/// tell) are taken from the one and called by the other, with other alignments and packet sizes: memory is corrupted
/// silently. The library cannot prevent that, but it can report it. Integers set to zero before any constructor runs, so
/// the order of static initialisation does not matter.
inline constinit UnitRegistry unit_registry{};

/// One per unit that uses the CPU operations, made during static initialisation. It has internal linkage there; this
/// constructor is shared by all units, so the settings come in as arguments.
struct UnitRegistration {
  explicit UnitRegistration(UnitSettings settings) {
    UnitRegistry& registry = unit_registry;
    if (registry.first == UnitSettings{}) {
      registry.first = settings;
    } else if (registry.first != settings && registry.different == UnitSettings{}) {
      registry.different = settings;
    }
  }
};

/// Throws when units of this program were compiled with different instruction sets or Eigen alignments.
inline void require_uniform_units() {
  const UnitRegistry& registry = unit_registry;
  if (registry.different == UnitSettings{}) return;
  const auto text = [](UnitSettings s) {
    return words(s.vector_bytes, "-byte vectors with Eigen alignment ", s.eigen_alignment);
  };
  throw Error("Context<Cpu>", "the same -m flags and Eigen macros in all units of a program",
              text(registry.first) + " in one unit, " + text(registry.different) + " in another");
}

}  // namespace coyote::inline v0::detail
