// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coyote/core/error.hpp"

namespace coyote::inline v0::detail {

/// How a unit of a program was compiled, as far as code that is shared between units depends on it.
struct UnitSettings {
  int vector_bytes = 0;  ///< width of our vector registers

  friend constexpr bool operator==(const UnitSettings&, const UnitSettings&) = default;
};

/// The settings of the first unit that registered, and of the first one that differed from it.
struct UnitRegistry {
  UnitSettings first, different;
};

/// The only mutable global of the library, and why it exists: a linker keeps one copy of each template or inline function,
/// whichever unit it came from. When units of one program differ in their -m flags, a layer's forward may come from the one
/// and its backward from the other, which read what is saved between them in another layout. The library cannot prevent
/// that, but it can report it. Integers set to zero before any constructor runs, so the order of static initialisation does
/// not matter.
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

/// Throws when units of this program were compiled with different instruction sets.
inline void require_uniform_units() {
  const UnitRegistry& registry = unit_registry;
  if (registry.different == UnitSettings{}) return;
  const auto text = [](UnitSettings s) { return words(s.vector_bytes, "-byte vectors"); };
  throw Error("Context<Cpu>", "the same -m flags in all units of a program",
              text(registry.first) + " in one unit, " + text(registry.different) + " in another");
}

}  // namespace coyote::inline v0::detail
