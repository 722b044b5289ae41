#pragma once

#include <string>
#include <vector>

#include "mergepipe/base/error.h"

namespace mergepipe {

/// The fields in which two JSON records differ, a line each: "options/density: 0.5 -> 0.6". Entries
/// of lists that have a name (tensors, files) are matched by it. `subject_a` and `subject_b` name
/// the records in errors.
Result<std::vector<std::string>> CompareRecords(const std::string& a, const std::string& subject_a,
                                                const std::string& b, const std::string& subject_b);

}  // namespace mergepipe
