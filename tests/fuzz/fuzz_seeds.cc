#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <string>

#include "catalog/statistics_codec.h"
#include "comm/mpi_communicator.h"
#include "exec/draw.h"
#include "mergepipe/exec/journal.h"
#include "mergepipe/exec/scan.h"
#include "mergepipe/format/safetensors.h"
#include "strategy/number_codec.h"
#include "support/memory_file_system.h"

namespace {

using namespace mergepipe;
using test::Draw;

constexpr uint64_t kSeeds = 3;

class Corpus {
 public:
  explicit Corpus(std::filesystem::path directory) : directory_(std::move(directory)) {}

  void Add(const std::string& fuzzer, const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories(directory_ / fuzzer);
    std::ofstream(directory_ / fuzzer / name, std::ios::binary) << bytes;
  }
  /// The bytes, cut in half, and with a bit flipped in the middle.
  void AddSpoilt(const std::string& fuzzer, const std::string& name, std::string bytes) const {
    Add(fuzzer, name, bytes);
    Add(fuzzer, name + "_cut", bytes.substr(0, bytes.size() / 2));
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
    Add(fuzzer, name + "_flipped", bytes);
  }

 private:
  std::filesystem::path directory_;
};

Slice MakeSlice(Draw& draw) {
  Slice slice;
  slice.block_size = 4;
  slice.strategy = {"ties", 0.5, {1, 2}, 1, draw.Number(), true, false};
  slice.base_files = {draw.File()};
  slice.expert_files = {{draw.File()}, {draw.File()}};
  slice.expert_ids = {"code", "math"};
  slice.output_files = {"/out/model.safetensors"};
  TensorPart part;
  part.name = "w";
  part.elements = 10;
  part.end = 3;
  part.merge = true;
  part.base = draw.Source();
  part.touched = draw.Blocks();
  part.experts = {draw.Source(), draw.Source()};
  part.selected = {draw.Blocks(), draw.Blocks()};
  part.selected_elements = {10, 8};
  part.known_hashes = {{draw.Hash()}, {}};
  part.known_base_hashes = {draw.Hash()};
  part.conclusion = "concluded";
  slice.parts = {part};
  slice.journal = "/out/journal/1.0";
  slice.identity = draw.Hash();
  return slice;
}

SliceReport MakeReport(Draw& draw) {
  SliceReport report;
  report.host = "host";
  report.expert_bytes_read = draw.Number();
  report.merge_seconds = draw.Real();
  report.parts = {{0,
                   0,
                   {draw.Hash(), draw.Hash()},
                   {draw.Hash()},
                   {{draw.Hash()}, {}},
                   {draw.Count()},
                   draw.Count(),
                   {0, 1}}};
  return report;
}

ScanSlice MakeScanSlice(Draw& draw) {
  ScanSlice slice;
  slice.block_size = 4;
  slice.probe = draw.Coin();
  slice.base_files = {draw.File()};
  slice.expert_files = {{draw.File()}};
  slice.expert_ids = {"code"};
  slice.parts = {{0, "w", 10, draw.Source(), {draw.Source()}, draw.Blocks(), true}};
  return slice;
}

ScanReport MakeScanReport(Draw& draw) {
  ScanReport report;
  report.host = "host";
  report.parts = {{0, {{draw.Real(), draw.Hash()}}, {{draw.Block(), draw.Block()}, {}}}};
  return report;
}

void AddMessages(const Corpus& corpus) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Draw draw(seed);
    const std::string number = std::to_string(seed);
    corpus.AddSpoilt("slice_fuzz", "slice" + number, SerializeSlice(MakeSlice(draw)));
    corpus.AddSpoilt("slice_fuzz", "report" + number, SerializeReport(MakeReport(draw)));
    corpus.AddSpoilt("scan_fuzz", "slice" + number, SerializeScanSlice(MakeScanSlice(draw)));
    corpus.AddSpoilt("scan_fuzz", "report" + number, SerializeScanReport(MakeScanReport(draw)));
  }
  corpus.Add("status_fuzz", "ok", SerializeStatus(Status()));
  corpus.AddSpoilt("status_fuzz", "error",
                   SerializeStatus(Fail(ErrorKind::kIo, "a/file", "is gone", "look for it")));
}

std::string LittleEndian(uint64_t number, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(number >> (8 * i));
  return text;
}

void AddJournals(const Corpus& corpus) {
  Draw draw(0);
  const std::string unit = JournalRecord(FinishedUnit{MakeReport(draw).parts, {8, 0, 4, 4, 0}});
  const std::string rounds = JournalRecord(FinishedRounds{1, "concluded", 16});
  corpus.AddSpoilt("journal_fuzz", "unit", unit);
  corpus.AddSpoilt("journal_fuzz", "rounds", rounds);
  corpus.Add("journal_fuzz", "begun", BegunRecord(8));

  // As the fuzzer's: identity {1, 2}.
  MemoryFileSystem files;
  auto writer = JournalWriter::Create(files, "/journal", Hash128{1, 2});
  if (!writer) return;
  for (const std::string& record : {unit, rounds, BegunRecord(8)})
    static_cast<void>((*writer)->Append(record));
  const auto whole = ReadSmallFile(files, "/journal", uint64_t{1} << 20);
  if (whole) corpus.AddSpoilt("journal_fuzz", "file", *whole);
}

void AddOutputs(const Corpus& corpus) {
  const auto write = [](uint64_t file, uint64_t offset, const std::string& bytes) {
    const std::string message = LittleEndian(file, 8) + LittleEndian(offset, 8) + bytes;
    return LittleEndian(message.size(), 1) + message;
  };
  corpus.AddSpoilt("remote_output_fuzz", "two", write(0, 0, "12345678") + write(1, 60, "abcd"));
  corpus.Add("remote_output_fuzz", "other_file", write(2, 0, "x"));
  corpus.Add("remote_output_fuzz", "beyond", write(0, UINT64_MAX - 3, "12345678"));
}

// Numbers as threshold_fuzz takes a message of them.
std::string Message(std::initializer_list<uint64_t> numbers, const std::string& rest = "") {
  std::string text;
  for (const uint64_t number : numbers) PutNumber(number, text);
  text += rest;
  return LittleEndian(text.size(), 2) + text;
}

void AddThresholds(const Corpus& corpus) {
  // Three experts of which the first has 7 elements, the third 40,000.
  const std::string histogram = {'\x02', '\x21'};
  corpus.AddSpoilt("threshold_fuzz", "histogram",
                   histogram + Message({1, 65536, 3, 2, 9, 3, 100, 1, 0, 1, 16256, 30000}) +
                       Message({1, 65536, 3, 1, 109, 3, 0, 1, 16256, 10000}) +
                       Message({1, 32768, 3, 1, 5, 6, 0, 1, 7, 40000}) +
                       Message({1, 32768, 3, 0, 0, 0}));
  // Two experts of 7 elements and none.
  const std::string by_sample = {'\x01', '\x01'};
  const std::string magnitudes = LittleEndian(1, 4) + LittleEndian(9, 4) + LittleEndian(3, 4);
  corpus.AddSpoilt("threshold_fuzz", "sample",
                   by_sample + Message({3, 2, 3, 3}, magnitudes + std::string(2, '\0')) +
                       Message({3, 2, 4, 65537, 0, 0}));
  // One of 40,000 and one of none, whose sample was dropped: the bracket is all.
  const std::string dropped = {'\x01', '\x02'};
  corpus.AddSpoilt("threshold_fuzz", "bracket",
                   dropped + Message({3, 2, 40000, 0, 0, 0}) + Message({3, 2, 0, 0, 0, 0}) +
                       Message({2, 2, 40000, 0, 0, 40000, 1, 9, 40000, 5, 7, 0, 0, 0, 0, 0}) +
                       Message({2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
}

void AddStatistics(const Corpus& corpus) {
  Draw draw(0);
  BlockStatistics block = draw.Block();
  block.sum_squares = 2;
  block.max_abs = 1;
  const std::vector<BlockStatistics> blocks = {block, {}};
  const auto bytes = Pack(std::span<const BlockStatistics>(blocks));
  corpus.AddSpoilt("statistics_codec_fuzz", "blocks",
                   {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::string WeightFile(const SafetensorsHeader& header) {
  // The padding of a header would fill the corpus.
  std::string text = SerializeSafetensorsHeader(header).substr(8);
  text.resize(text.find_last_not_of(' ') + 1);
  return LittleEndian(text.size(), 8) + text + std::string(header.entries.back().end, '\1');
}

void AddModels(const Corpus& corpus) {
  const auto file = [](uint64_t name, const std::string& text) {
    return LittleEndian(name, 1) + LittleEndian(text.size(), 3) + text;
  };
  const std::string a = WeightFile({{{"format", "pt"}}, {{"w", DType::kF32, {2, 3}, 0, 24}}});
  const std::string b =
      WeightFile({{}, {{"e", DType::kI64, {0}, 0, 0}, {"s", DType::kBF16, {}, 0, 2}}});
  const std::string index =
      R"({"metadata":{"total_size":26},"weight_map":{"w":"a.safetensors","e":"b.safetensors","s":"b.safetensors"}})";
  const std::string config = R"({"torch_dtype":"float32","tie_word_embeddings":false})";
  corpus.AddSpoilt("model_fuzz", "single", file(4, a) + file(1, config));
  corpus.AddSpoilt("model_fuzz", "sharded", file(0, index) + file(2, a) + file(3, b));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: fuzz_seeds DIR\n";
    return 2;
  }
  const Corpus corpus(argv[1]);
  AddMessages(corpus);
  AddJournals(corpus);
  AddOutputs(corpus);
  AddThresholds(corpus);
  AddStatistics(corpus);
  AddModels(corpus);
  // Catalogs are made by the fuzzer: an input is what is changed in one.
  corpus.Add("catalog_fuzz", "whole", "");
  corpus.Add("catalog_fuzz", "schema_version", LittleEndian(63, 3) + "\1");
  std::string many;
  for (uint64_t at = 100; many.size() < 64; at += 4093) many += LittleEndian(at, 3) + '\7';
  corpus.Add("catalog_fuzz", "many", many);
  corpus.Add("catalog_fuzz", "cut", LittleEndian(UINT64_MAX, 4));
  return 0;
}
