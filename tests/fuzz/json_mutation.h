#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

/// \file
/// Mutations of JSON that stay JSON: flipped bytes hardly ever come past the parser.
namespace mergepipe::fuzz {

class JsonMutation {
 public:
  explicit JsonMutation(unsigned seed) : random_(seed) {}

  void Apply(nlohmann::json& json) {
    std::vector<nlohmann::json*> values;
    Collect(json, values);
    nlohmann::json& value = *values[Below(values.size())];
    switch (Below(6)) {
      case 0: value = Interesting(); break;
      case 1: {
        nlohmann::json other = *values[Below(values.size())];
        value = std::move(other);
        break;
      }
      case 2: EraseChild(value); break;
      case 3: RepeatChild(value); break;
      case 4: Change(value); break;
      default: std::swap(Child(json), Child(json));
    }
  }

  bool Coin(unsigned one_in) { return Below(one_in) == 0; }

 private:
  size_t Below(size_t n) { return random_() % n; }

  static void Collect(nlohmann::json& json, std::vector<nlohmann::json*>& values) {
    values.push_back(&json);
    if (!json.is_structured()) return;
    for (auto& child : json) Collect(child, values);
  }

  nlohmann::json& Child(nlohmann::json& json) {
    if (!json.is_structured() || json.empty()) return json;
    return *std::next(json.begin(), static_cast<std::ptrdiff_t>(Below(json.size())));
  }

  void EraseChild(nlohmann::json& json) {
    if (!json.is_structured() || json.empty()) return;
    json.erase(std::next(json.begin(), static_cast<std::ptrdiff_t>(Below(json.size()))));
  }

  void RepeatChild(nlohmann::json& json) {
    if (!json.is_structured() || json.empty()) return;
    nlohmann::json child = Child(json);
    if (json.is_array()) {
      json.insert(std::next(json.begin(), static_cast<std::ptrdiff_t>(Below(json.size() + 1))),
                  std::move(child));
    } else {
      json[std::next(json.begin(), static_cast<std::ptrdiff_t>(Below(json.size()))).key()] =
          std::move(child);
    }
  }

  void Change(nlohmann::json& json) {
    if (json.is_number_unsigned()) {
      const auto number = json.get<uint64_t>();
      const uint64_t numbers[] = {number + 1, number - 1, number * 2, number << Below(64), ~number};
      json = numbers[Below(std::size(numbers))];
    } else if (json.is_string()) {
      auto& text = json.get_ref<std::string&>();
      const size_t length = text.size();
      text.resize(length + 16);
      text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), length, text.size()));
    } else {
      json = Interesting();
    }
  }

  nlohmann::json Interesting() {
    static const std::vector<nlohmann::json> kValues = {0,
                                                        1,
                                                        2,
                                                        63,
                                                        64,
                                                        65,
                                                        -1,
                                                        1.5,
                                                        1e308,
                                                        true,
                                                        false,
                                                        nullptr,
                                                        "",
                                                        "..",
                                                        "a/../b",
                                                        "/",
                                                        "x:",
                                                        "0",
                                                        "0-1",
                                                        "0-67108863",
                                                        "\xc2\x9b",
                                                        "manifest.json",
                                                        "mergepipe.plan/2",
                                                        "same",
                                                        "base",
                                                        uint64_t{1} << 24,
                                                        uint64_t{1} << 26,
                                                        uint64_t{1} << 32,
                                                        uint64_t{1} << 62,
                                                        UINT64_MAX,
                                                        nlohmann::json::array(),
                                                        nlohmann::json::object(),
                                                        "00000000000000000000000000000000"};
    return kValues[Below(kValues.size())];
  }

  std::mt19937 random_;
};

/// For LLVMFuzzerCustomMutator of a fuzzer whose inputs are JSON.
inline size_t MutateJson(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  JsonMutation mutation(seed);
  if (!mutation.Coin(8)) {
    const char* text = reinterpret_cast<const char*>(data);
    auto json = nlohmann::json::parse(text, text + size, nullptr, /*allow_exceptions=*/false);
    if (!json.is_discarded()) {
      do mutation.Apply(json);
      while (mutation.Coin(2));
      const std::string changed =
          json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
      if (changed.size() <= max_size) {
        std::memcpy(data, changed.data(), changed.size());
        return changed.size();
      }
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

}  // namespace mergepipe::fuzz
