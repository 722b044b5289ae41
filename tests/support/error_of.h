#pragma once

#include "mergepipe/base/error.h"

namespace mergepipe {

/// The error of `result`, to compare or to look into; one that nothing else makes if there is none.
template <typename T>
Error ErrorOf(const Result<T>& result) {
  return result ? Error(ErrorKind::kInternal, "ErrorOf", "this is a success") : result.error();
}

}  // namespace mergepipe
