// JSON, as much as spec.json and golden.json need: read whole, never written.
#pragma once

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace slimface {

/** What is wrong with a bundle, a model or a picture, and what to do now. */
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  /** Parse a whole text; `where` names it in errors. */
  static Json parse(const std::string& text, const std::string& where) {
    Reader reader{text, where, 0, 0};
    Json value = reader.value();
    reader.skip();
    if (reader.at != text.size()) reader.fail("something follows the end");
    return value;
  }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  double number() const { return expect(Kind::number, "a number"), number_; }
  int integer() const { return static_cast<int>(number()); }
  bool boolean() const { return expect(Kind::boolean, "true or false"), number_ != 0; }
  const std::string& text() const { return expect(Kind::text, "a text"), text_; }
  const std::vector<Json>& list() const { return expect(Kind::list, "a list"), list_; }
  bool has(const std::string& key) const { return fields_.count(key) > 0; }

  /** The value of a key of an object. */
  const Json& operator[](const std::string& key) const {
    expect(Kind::object, "an object");
    const auto found = fields_.find(key);
    if (found == fields_.end()) throw Error("the spec has no '" + key + "'. Copy the bundle again.");
    return found->second;
  }

  const std::map<std::string, Json>& fields() const {
    return expect(Kind::object, "an object"), fields_;
  }

 private:
  struct Reader {
    const std::string& text;
    const std::string& where;
    size_t at;
    int depth;

    [[noreturn]] void fail(const std::string& what) const {
      throw Error(where + ": " + what + " at byte " + std::to_string(at) +
                  "; it is no JSON. Copy the bundle again.");
    }

    void skip() {
      while (at < text.size() && std::string(" \t\r\n").find(text[at]) != std::string::npos) ++at;
    }

    char next() {
      skip();
      if (at >= text.size()) fail("the text ends");
      return text[at];
    }

    bool take(char wanted) {
      if (next() != wanted) return false;
      ++at;
      return true;
    }

    bool word(const char* wanted) {
      const std::string whole(wanted);
      if (text.compare(at, whole.size(), whole) != 0) return false;
      at += whole.size();
      return true;
    }

    Json value() {
      if (++depth > 64) fail("values lie too deep in each other");
      Json made;
      const char first = next();
      if (first == '{') {
        object(made);
      } else if (first == '[') {
        list(made);
      } else if (first == '"') {
        made.kind_ = Kind::text;
        made.text_ = string();
      } else if (word("true") || word("false")) {
        made.kind_ = Kind::boolean;
        made.number_ = text[at - 2] == 'u';
      } else if (!word("null")) {
        char* end = nullptr;
        made.kind_ = Kind::number;
        made.number_ = std::strtod(text.c_str() + at, &end);
        if (end == text.c_str() + at) fail("no value");
        at = static_cast<size_t>(end - text.c_str());
      }
      --depth;
      return made;
    }

    void object(Json& made) {
      made.kind_ = Kind::object;
      ++at;
      if (take('}')) return;
      do {
        if (next() != '"') fail("no key");
        const std::string key = string();
        if (!take(':')) fail("no ':'");
        made.fields_[key] = value();
      } while (take(','));
      if (!take('}')) fail("no '}'");
    }

    void list(Json& made) {
      made.kind_ = Kind::list;
      ++at;
      if (take(']')) return;
      do made.list_.push_back(value());
      while (take(','));
      if (!take(']')) fail("no ']'");
    }

    std::string string() {
      std::string made;
      for (++at; at < text.size() && text[at] != '"'; ++at) {
        if (text[at] != '\\') {
          made += text[at];
          continue;
        }
        if (++at >= text.size()) break;
        const std::string plain = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
        const size_t known = plain.find(text[at]);
        if (known != std::string::npos) {
          made += meant[known];
        } else if (text[at] == 'u' && at + 4 < text.size()) {
          // Names may hold such letters; nothing that is computed does.
          made += '?';
          at += 4;
        } else {
          fail("an escape that is none");
        }
      }
      if (at >= text.size()) fail("a text without an end");
      ++at;
      return made;
    }
  };

  void expect(Kind kind, const char* what) const {
    if (kind_ != kind) throw Error(std::string("the spec has something else than ") + what +
                                   " in one place. Copy the bundle again.");
  }

  Kind kind_ = Kind::null;
  double number_ = 0;
  std::string text_;
  std::vector<Json> list_;
  std::map<std::string, Json> fields_;
};

}  // namespace slimface
