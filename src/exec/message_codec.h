#pragma once

#include <algorithm>
#include <array>
#include <cereal/archives/portable_binary.hpp>
#include <cstdint>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mergepipe/base/checked.h"
#include "mergepipe/exec/slice.h"

/// \file
/// What ranks send each other as bytes, portable: they may run on machines of different byte order.
/// The first four bytes say what follows. Cereal carries the numbers; lengths are checked here,
/// against the bytes that are there, before anything is allocated for them.
///
/// A type takes part with `template <typename Codec> void Fields(Codec&, T&)` in this namespace,
/// which gives its fields to the codec in their order.
namespace mergepipe {

class MessageWriter {
 public:
  explicit MessageWriter(std::ostream& out) : archive_(out) {}

  template <typename... T>
  void operator()(const T&... values) {
    (Put(values), ...);
  }

 private:
  template <typename T>
  void Put(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      archive_(static_cast<uint8_t>(value));
    } else if constexpr (std::is_enum_v<T> || std::is_arithmetic_v<T>) {
      archive_(value);
    } else {
      // One list of fields serves both directions.
      Fields(*this, const_cast<T&>(value));
    }
  }
  void Put(const std::string& text) {
    archive_(uint64_t{text.size()}, cereal::binary_data(text.data(), text.size()));
  }
  template <typename T>
  void Put(const std::vector<T>& list) {
    archive_(uint64_t{list.size()});
    if constexpr (std::is_arithmetic_v<T>) {
      archive_(cereal::binary_data(list.data(), list.size() * sizeof(T)));
    } else {
      for (const T& value : list) Put(value);
    }
  }
  template <size_t kSize>
  void Put(const std::array<int8_t, kSize>& numbers) {
    archive_(cereal::binary_data(numbers.data(), kSize));
  }
  void Put(const BlockSet& blocks) {
    std::string bits(CeilDivide(blocks.size(), 8), '\0');
    blocks.ForEachRun([&](BlockIndex begin, BlockIndex end) {
      for (uint64_t b = begin.value; b < end.value; ++b) {
        bits[b / 8] = static_cast<char>(bits[b / 8] | (1 << (b % 8)));
      }
    });
    archive_(blocks.size());
    Put(bits);
  }

  cereal::PortableBinaryOutputArchive archive_;
};

/// Throws an exception for bytes that are not what the writer makes of such values.
class MessageReader {
 public:
  /// `in` has `size` bytes.
  MessageReader(std::istream& in, uint64_t size) : in_(in), size_(size), archive_(in) {}

  template <typename... T>
  void operator()(T&... values) {
    (Get(values), ...);
  }

  uint64_t Left() { return size_ - static_cast<uint64_t>(in_.tellg()); }

 private:
  static void Require(bool condition) {
    if (!condition) throw std::runtime_error("malformed");
  }

  /// Of what takes at least `bytes` an element.
  uint64_t Length(uint64_t bytes = 1) {
    uint64_t length = 0;
    archive_(length);
    Require(length <= Left() / bytes);
    return length;
  }

  template <typename T>
  void Get(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      uint8_t byte = 0;
      archive_(byte);
      Require(byte <= 1);
      value = byte == 1;
    } else if constexpr (std::is_arithmetic_v<T>) {
      archive_(value);
    } else {
      Fields(*this, value);
    }
  }
  template <typename T>
  void GetEnum(T& value, T last) {
    archive_(value);
    Require(value <= last);
  }
  void Get(DType& dtype) { GetEnum(dtype, DType::kBool); }
  void Get(OutputForm& form) { GetEnum(form, OutputForm::kSparse); }
  void Get(std::string& text) {
    text.resize(Length());
    archive_(cereal::binary_data(text.data(), text.size()));
  }
  template <typename T>
  void Get(std::vector<T>& list) {
    if constexpr (std::is_arithmetic_v<T>) {
      list.resize(Length(sizeof(T)));
      archive_(cereal::binary_data(list.data(), list.size() * sizeof(T)));
    } else {
      const uint64_t length = Length();
      // No more than what is there could fill: a byte may announce an element of hundreds.
      list.reserve(std::min(length, Left() / sizeof(T)));
      for (uint64_t i = 0; i < length; ++i) Get(list.emplace_back());
    }
  }
  template <size_t kSize>
  void Get(std::array<int8_t, kSize>& numbers) {
    archive_(cereal::binary_data(numbers.data(), kSize));
  }
  void Get(BlockSet& blocks) {
    uint64_t size = 0;
    std::string bits;
    archive_(size);
    Get(bits);
    Require(bits.size() == CeilDivide(size, 8));
    blocks = BlockSet(size);
    for (uint64_t b = 0; b < bits.size() * 8; ++b) {
      if (((static_cast<uint8_t>(bits[b / 8]) >> (b % 8)) & 1) == 0) continue;
      Require(b < size);
      blocks.Add(BlockIndex(b));
    }
  }

  std::istream& in_;
  uint64_t size_;
  cereal::PortableBinaryInputArchive archive_;
};

template <typename Codec>
void Fields(Codec& codec, Hash128& hash) {
  codec(hash.high, hash.low);
}

template <typename Codec>
void Fields(Codec& codec, SourceFile& file) {
  codec(file.path, file.size, file.mtime_ns, file.data_begin);
}

template <typename Codec>
void Fields(Codec& codec, SourceTensor& tensor) {
  codec(tensor.present, tensor.dtype, tensor.file, tensor.offset);
}

template <typename T>
std::string ToBytes(const T& value, uint32_t tag) {
  std::ostringstream out;
  MessageWriter writer(out);
  writer(tag, value);
  return std::move(out).str();
}

/// kInternal, with `what` as the subject, if the bytes are not those of such a value.
template <typename T>
Result<T> FromBytes(const std::string& bytes, uint32_t tag, const char* what) {
  try {
    std::istringstream in(bytes);
    MessageReader reader(in, bytes.size());
    uint32_t found = 0;
    reader(found);
    T value;
    if (found == tag) reader(value);
    if (found == tag && reader.Left() == 0) return value;
  } catch (const std::exception&) {
  }
  return Fail(ErrorKind::kInternal, what, "arrived damaged from another rank",
              "check that all ranks run the same build");
}

}  // namespace mergepipe
