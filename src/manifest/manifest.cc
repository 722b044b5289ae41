#include "mergepipe/manifest/manifest.h"

#include <algorithm>

namespace mergepipe {
namespace {

Error Defect(const std::string& tensor, const std::string& what) {
  return Error(ErrorKind::kInternal, "tensor '" + tensor + "'", what, "please report this defect");
}

// Everything that the ranks report about one tensor, in block order.
struct Assembled {
  std::vector<Hash128> block_hashes;
  std::vector<Hash128> base_hashes;
  std::vector<std::vector<Hash128>> read_hashes;
  std::vector<NonFiniteCount> inputs;
  NonFiniteCount made;
  std::vector<bool> differs;
};

// How a tensor was made.
struct Making {
  OutputForm form;
  BlockSet touched;
  size_t experts;  // that were read

  // How many of the blocks before `end` are in the output.
  uint64_t BlocksBefore(uint64_t end) const {
    return form == OutputForm::kFull ? end : touched.Within(BlockIndex(0), BlockIndex(end)).Count();
  }
};

Result<Assembled> Assemble(const PlannedTensor& tensor, const Making& making,
                           const std::vector<const PartReport*>& parts) {
  const size_t experts = making.experts;
  Assembled all{{},
                {},
                std::vector<std::vector<Hash128>>(experts),
                std::vector<NonFiniteCount>(experts + 1),
                {},
                std::vector<bool>(experts)};
  for (const PartReport* part : parts) {
    if (part->begin > making.touched.size() ||
        making.BlocksBefore(part->begin) != all.block_hashes.size() ||
        part->read_hashes.size() != experts ||
        part->base_hashes.size() != part->block_hashes.size() ||
        part->inputs.size() != experts + 1 || part->differs.size() != experts) {
      return tl::unexpected(Defect(tensor.name, "the ranks' reports do not fit together"));
    }
    all.block_hashes.insert(all.block_hashes.end(), part->block_hashes.begin(),
                            part->block_hashes.end());
    all.base_hashes.insert(all.base_hashes.end(), part->base_hashes.begin(),
                           part->base_hashes.end());
    for (size_t k = 0; k < experts; ++k) {
      all.read_hashes[k].insert(all.read_hashes[k].end(), part->read_hashes[k].begin(),
                                part->read_hashes[k].end());
      if (part->differs[k] != 0) all.differs[k] = true;
    }
    for (size_t i = 0; i <= experts; ++i) all.inputs[i] += part->inputs[i];
    all.made += part->made;
  }
  if (all.block_hashes.size() != making.BlocksBefore(making.touched.size()))
    return tl::unexpected(Defect(tensor.name, "the ranks' reports do not cover it"));
  return all;
}

Status RecordSources(const PlannedTensor& tensor, const Assembled& all, ManifestTensor& record) {
  for (uint32_t k = 0; k < tensor.sources.size(); ++k) {
    if (all.read_hashes[k].size() != tensor.selected[k].Count()) {
      return tl::unexpected(Defect(tensor.name, "other blocks were read than planned"));
    }
    const bool compared = tensor.compare && tensor.sources[k].present;
    if (tensor.selected[k].Empty() && !compared) continue;
    record.sources.push_back({k, tensor.selected[k], CombineHashes(all.read_hashes[k]),
                              all.inputs[k + 1], all.differs[k]});
  }
  return {};
}

Hash128 HashOf(const BlockSet& blocks, const std::vector<Hash128>& hashes) {
  std::vector<Hash128> kept;
  for (uint64_t b = 0; b < hashes.size(); ++b) {
    if (blocks.Contains(BlockIndex(b))) kept.push_back(hashes[b]);
  }
  return TensorHash(kept);
}

// What the touched blocks of a tensor were when they were merged into a sparse output.
Status TakeOver(const ManifestTensor& sparse, const Making& making, const Assembled& all,
                ManifestTensor& record) {
  const auto other = [&](const std::string& subject, const char* remedy) {
    return Fail(ErrorKind::kBadInput, subject + ": tensor '" + record.name + "'",
                "is not what the sparse output's manifest states: the file has changed", remedy);
  };
  if (HashOf(making.touched, all.block_hashes) != sparse.hash)
    return other(kSparseName, "restore the file, or merge again");
  if (HashOf(making.touched, all.base_hashes) != sparse.base_hash)
    return other("base", "give the very base of the merge by --base");
  record.sources = sparse.sources;
  record.base_nonfinite += sparse.base_nonfinite;
  record.made_nonfinite += sparse.made_nonfinite;
  return {};
}

Result<ManifestTensor> RecordTensor(const Plan& plan, const PlannedTensor& tensor, OutputForm form,
                                    const std::vector<const PartReport*>& parts,
                                    const ManifestTensor* sparse) {
  const Making making{form, tensor.Touched(plan.options.block_size),
                      sparse == nullptr ? tensor.sources.size() : 0};
  MERGEPIPE_ASSIGN_OR_RETURN(const Assembled all, Assemble(tensor, making, parts));
  ManifestTensor record{tensor.name,
                        tensor.out_dtype,
                        tensor.shape,
                        tensor.rule,
                        tensor.reason,
                        {},
                        making.touched.size(),
                        making.touched.Count(),
                        TensorHash(all.block_hashes),
                        TensorHash(all.base_hashes),
                        all.inputs[0],
                        all.made,
                        {}};
  if (tensor.rule == TensorRule::kMerge && record.touched_blocks == 0) {
    record.reason = "the base's bytes: no block of it was selected";
  }
  MERGEPIPE_RETURN_IF_ERROR(sparse == nullptr ? RecordSources(tensor, all, record)
                                              : TakeOver(*sparse, making, all, record));
  return record;
}

Result<std::vector<std::vector<const PartReport*>>> PartsByTensor(
    const Plan& plan, const std::vector<SliceReport>& reports,
    std::span<const PartReport> earlier) {
  std::vector<std::vector<const PartReport*>> parts(plan.tensors.size());
  const auto add = [&](const PartReport& part) {
    if (part.tensor >= parts.size()) return false;
    parts[part.tensor].push_back(&part);
    return true;
  };
  bool known = std::ranges::all_of(earlier, add);
  for (const SliceReport& report : reports) known = known && std::ranges::all_of(report.parts, add);
  if (!known) return tl::unexpected(Defect("?", "is reported, but not in the plan"));
  for (auto& of_tensor : parts) {
    std::sort(of_tensor.begin(), of_tensor.end(),
              [](const PartReport* a, const PartReport* b) { return a->begin < b->begin; });
  }
  return parts;
}

void RecordIo(const std::vector<SliceReport>& reports, const EarlierAttempts& earlier,
              Manifest& manifest) {
  manifest.io += earlier.io;
  manifest.resumed_expert_bytes = earlier.io.expert_bytes_read + earlier.io.probe_bytes_read;
  manifest.reread_bytes = earlier.lost_bytes;
  for (const SliceReport& report : reports) {
    const IoCounts io{report.compare_bytes_read, report.expert_bytes_read, report.base_bytes_read,
                      report.output_bytes_written, report.copied_bytes};
    manifest.by_rank.push_back({report.rank, report.host, io});
    manifest.io += io;
  }
}

}  // namespace

BlockSet ManifestTensor::Touched() const {
  BlockSet touched(blocks);
  for (const ManifestSource& source : sources) touched.Unite(source.blocks);
  return touched;
}

IoCounts& IoCounts::operator+=(const IoCounts& other) {
  probe_bytes_read += other.probe_bytes_read;
  expert_bytes_read += other.expert_bytes_read;
  base_bytes_read += other.base_bytes_read;
  output_bytes_written += other.output_bytes_written;
  copied_bytes += other.copied_bytes;
  return *this;
}

Hash128 TensorHash(const std::vector<Hash128>& blocks) { return CombineHashes(blocks); }

Hash128 WeightFileHash(const Hash128& header, const std::vector<Hash128>& tensors) {
  std::vector<Hash128> all = {header};
  all.insert(all.end(), tensors.begin(), tensors.end());
  return CombineHashes(all);
}

Status RecordReports(const Plan& plan, const OutputLayout& layout,
                     const std::vector<SliceReport>& reports, Manifest& manifest,
                     const Manifest* sparse, const EarlierAttempts& earlier) {
  MERGEPIPE_ASSIGN_OR_RETURN(const auto parts, PartsByTensor(plan, reports, earlier.reports));
  std::vector<std::vector<Hash128>> hashes_by_file(layout.files.size());
  for (size_t t = 0; t < plan.tensors.size(); ++t) {
    MERGEPIPE_ASSIGN_OR_RETURN(ManifestTensor tensor,
                               RecordTensor(plan, plan.tensors[t], manifest.output, parts[t],
                                            sparse == nullptr ? nullptr : &sparse->tensors[t]));
    if (manifest.output == OutputForm::kFull || tensor.touched_blocks > 0) {
      const uint32_t file = layout.tensors[t].file;
      tensor.file = layout.files[file].name;
      hashes_by_file[file].push_back(tensor.hash);
    }
    manifest.tensors.push_back(std::move(tensor));
  }
  for (size_t f = 0; f < layout.files.size(); ++f) {
    const OutputFile& file = layout.files[f];
    manifest.files.push_back(
        {file.name, file.size, WeightFileHash(HashText(file.header), hashes_by_file[f])});
  }
  RecordIo(reports, earlier, manifest);
  return {};
}

}  // namespace mergepipe
