// SPDX-License-Identifier: Apache-2.0
// A matrix of const elements is read-only: views of it do not become mutable.
// expect: Rows<
#include "coyote/core/rows.hpp"

float first(const coyote::Matrix<float>& matrix);
float first(const coyote::Matrix<float>& matrix) {
#ifdef COYOTE_EXPECT_OK
  const coyote::Rows<const float> view = matrix;
#else
  const coyote::Rows<float> view = matrix;
#endif
  return view(0, 0);
}
