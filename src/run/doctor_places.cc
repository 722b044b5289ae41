#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>

#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/format/model.h"
#include "mergepipe/io/directory_probe.h"
#include "run/doctor_parts.h"

namespace mergepipe {
namespace {

constexpr std::array<std::string_view, 4> kWeightNames = {"safetensors", ".bin", ".gguf", ".pt"};
constexpr uint64_t kLittleSpace = 64 * kMiB;

// A directory, and what a merge has it for.
struct Place {
  std::string roles;  // "output, catalog"
  bool is_written = false;
  bool needs_locks = false;
  bool holds_output = false;
};
using Places = std::map<std::string, Place>;

bool IsDirectory(FileSystem& files, const std::string& path) {
  const auto info = files.Stat(path);
  return info && info->kind == FileKind::kDirectory;
}

// Where a directory would be made.
std::string NearestExisting(FileSystem& files, std::string path) {
  while (!IsDirectory(files, path) && path != ParentPath(path)) path = ParentPath(path);
  return path;
}

Place& PlaceFor(Places& places, const std::string& directory, const std::string& role) {
  Place& place = places[directory];
  place.roles += (place.roles.empty() ? "" : ", ") + role;
  return place;
}

Places FindPlaces(FileSystem& files, const DoctorOptions& options) {
  Places places;
  PlaceFor(places, AbsolutePath("."), "current directory");
  if (!options.output.empty()) {
    Place& place = PlaceFor(places, ParentPath(AbsolutePath(options.output)), "output");
    place.is_written = place.needs_locks = place.holds_output = true;
  }
  Place& catalog = PlaceFor(places, ParentPath(AbsolutePath(options.catalog)), "catalog");
  catalog.is_written = catalog.needs_locks = true;
  PlaceFor(places, NearestExisting(files, AbsolutePath(options.runs_directory)), "runs")
      .is_written = true;
  for (const std::string& input : options.inputs) {
    const std::string path = AbsolutePath(input);
    if (!files.Stat(path)) continue;  // said of the input
    PlaceFor(places, IsDirectory(files, path) ? path : ParentPath(path), "disk of input");
  }
  return places;
}

// Bytes of the smallest model among the inputs: no output is smaller than its base.
std::optional<uint64_t> SmallestOutput(FileSystem& files, const DoctorOptions& options) {
  std::optional<uint64_t> smallest;
  for (const std::string& input : options.inputs) {
    const auto model = ReadModel(files, input);
    if (model && (!smallest || model->WeightBytes() < *smallest)) smallest = model->WeightBytes();
  }
  return smallest;
}

// By the names alone: what is wrong with weights is for ReadModel to say.
bool MayHaveWeights(FileSystem& files, const std::string& directory) {
  const auto entries = files.List(directory);
  if (!entries) return true;
  return std::ranges::any_of(*entries, [](const DirectoryEntry& entry) {
    return std::ranges::any_of(kWeightNames, [&](std::string_view part) {
      return entry.name.find(part) != std::string::npos;
    });
  });
}

class PlaceExaminer {
 public:
  PlaceExaminer(FileSystem& files, std::optional<uint64_t> output_bytes, Findings& findings)
      : files_(files), output_bytes_(output_bytes), findings_(findings) {}

  void Examine(const std::string& directory, const Place& place) {
    finding_ = {place.roles + " " + EscapeControl(directory), Verdict::kOk, ""};
    place_ = place;
    if (!IsDirectory(files_, directory)) {
      Worsen(Verdict::kProblem, "is no directory", "create it: mkdir -p " + Quote(directory),
             ErrorKind::kUsage);
    } else if (DescribeDisk(directory) && place.is_written) {
      Try(directory);
      DescribeSpace(directory);
    }
    findings_.push_back(std::move(finding_));
  }

 private:
  void Say(const std::string& text) {
    (finding_.text += finding_.text.empty() ? "" : ", ") += text;
  }

  // The first remedy stays unless something worse comes.
  void Worsen(Verdict verdict, const std::string& text, const std::string& remedy,
              ErrorKind kind = ErrorKind::kIo) {
    Say(text);
    if (verdict <= finding_.verdict) return;
    finding_.verdict = verdict;
    finding_.remedy = remedy;
    finding_.kind = kind;
  }
  void Worsen(const Error& error) {
    const Problem& problem = error.problems().front();
    Worsen(Verdict::kProblem, problem.what, problem.remedy, error.kind());
  }

  bool DescribeDisk(const std::string& directory) {
    const auto disk = files_.TraitsOf(directory);
    if (!disk) {
      Worsen(disk.error());
      return false;
    }
    Say(disk->filesystem);
    Say(disk->network ? "network" : "local");
    Say(disk->direct ? "weights are read direct" : "weights are read through the page cache");
    return true;
  }

  void DescribeSpace(const std::string& directory) {
    const auto space = files_.FreeSpace(directory);
    if (!space) return Worsen(space.error());
    const std::string text = FormatBytes(Bytes(*space)) + " free";
    if (place_.holds_output && output_bytes_ && *space < *output_bytes_) {
      Worsen(Verdict::kProblem,
             text + ", and an output as large as the smallest input has " +
                 FormatBytes(Bytes(*output_bytes_)),
             "free some space, or choose an --out on another disk", ErrorKind::kNoSpace);
    } else if (*space < kLittleSpace) {
      Worsen(Verdict::kProblem, text, "free some space", ErrorKind::kNoSpace);
    } else {
      Say(text);
    }
  }

  void Try(const std::string& directory) {
    const auto able = ProbeDirectory(directory);
    if (!able) return Worsen(able.error());
    if (able->locks) {
      Say("locks");
    } else {
      Worsen(place_.needs_locks ? Verdict::kProblem : Verdict::kNote, "no locks",
             "mount it with locks (Lustre: -o flock; NFS: with lockd), or choose another disk");
    }
    if (able->spares_targets && able->exchanges_names) {
      Say("atomic renames");
    } else {
      Worsen(Verdict::kNote, "renames are not atomic",
             "nothing to do: --overwrite takes two steps, and `mergepipe recover` settles one that "
             "was killed between them");
    }
    if (!able->syncs) {
      Worsen(Verdict::kNote, "directories cannot be synced",
             "after a power failure check the newest outputs with `mergepipe verify`");
    }
  }

  FileSystem& files_;
  std::optional<uint64_t> output_bytes_;
  Findings& findings_;
  Finding finding_;
  Place place_;
};

}  // namespace

void ExaminePlaces(FileSystem& files, const DoctorOptions& options, Findings& findings) {
  PlaceExaminer examiner(files, SmallestOutput(files, options), findings);
  for (const auto& [directory, place] : FindPlaces(files, options))
    examiner.Examine(directory, place);
  if (options.output.empty()) return;
  const auto there = files.Exists(AbsolutePath(options.output));
  if (there && *there) {
    findings.push_back({"output " + EscapeControl(options.output), Verdict::kNote, "exists already",
                        "choose another --out, or pass --overwrite to the merge"});
  }
}

void ExamineSharedPlaces(FileSystem& files, const DoctorOptions& options, Findings& findings) {
  for (const std::string& input : options.inputs) {
    if (const auto info = files.Stat(input); !info) {
      findings.push_back({"input " + EscapeControl(input), Verdict::kProblem,
                          "cannot be seen: " + info.error().problems().front().what,
                          "every host must see the inputs", ErrorKind::kBadInput});
    }
  }
  if (options.output.empty() || IsDirectory(files, ParentPath(AbsolutePath(options.output))))
    return;
  findings.push_back({"output " + EscapeControl(options.output), Verdict::kNote,
                      "its directory cannot be seen: rank 0 writes for all",
                      "choose an --out on a filesystem that all hosts share"});
}

void ExamineInputs(FileSystem& files, const DoctorOptions& options, Findings& findings) {
  for (const std::string& input : options.inputs) {
    const std::string topic = "input " + EscapeControl(input);
    if (IsDirectory(files, input) && !MayHaveWeights(files, input)) {
      findings.push_back({topic, Verdict::kNote, "a directory without weights"});
      continue;
    }
    const auto model = ReadModel(files, input);
    if (!model) {
      const Problem& problem = model.error().problems().front();
      const std::string subject = problem.subject == input ? "" : problem.subject + ": ";
      findings.push_back({topic, Verdict::kProblem, EscapeControl(subject + problem.what),
                          problem.remedy, model.error().kind()});
      continue;
    }
    findings.push_back(
        {topic, Verdict::kOk,
         fmt::format("{} tensors, {}", model->tensors.size(),
                     FormatBytes(Bytes(model->WeightBytes()))) +
             (model->files.size() > 1 ? fmt::format(" in {} files", model->files.size()) : "")});
  }
}

}  // namespace mergepipe
