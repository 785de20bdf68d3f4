// libnvrtc.so for a machine without CUDA: checks that a program is one that NVRTC could be given, and makes an image that
// the emulated driver takes. It compiles nothing: the kernels are in libcuda.so already.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <regex>
#include <set>
#include <string>

namespace {
enum { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, COMPILATION = 6 };
struct Program {
    std::string name;
    std::map<std::string, std::string> sources;  // by the names of their includes; the program itself is ""
    std::string image, log;
};
// Follows the includes as the preprocessor would; #if is not looked at, so one that is not given is an error in any branch
// but that of the emulator, which is what NVRTC never sees.
void follow(Program& p, const std::string& file, std::set<std::string>& seen) {
    if (!seen.insert(file).second) return;
    static const std::regex INCLUDE("^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]"), BRANCH("^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\\b(.*)");
    static const std::set<std::string> BUILT_IN{"cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "mma.h", "cooperative_groups.h", "cuda_pipeline.h"};
    const std::string& text = p.sources[file];
    struct Branch { bool hidden, of_cuda, of_host; };
    std::vector<Branch> branches;
    size_t line_number = 0;
    for (size_t at = 0; at < text.size(); ++line_number) {
        size_t end = std::min(text.find('\n', at), text.size());
        std::string line = text.substr(at, end - at);
        at = end + 1;
        std::smatch m;
        auto hidden = [&] { for (auto& b : branches) if (b.hidden) return true; return false; };
        if (std::regex_search(line, m, BRANCH)) {
            std::string word = m[1], rest = m[2];
            if (word.starts_with("if")) {
                bool names = rest.find("__CUDACC__") != std::string::npos || rest.find("EMU_LIST") != std::string::npos;
                bool host = names && ((word == "ifndef" && rest.find("EMU_LIST") == std::string::npos) || rest.find("!defined(__CUDACC__)") != std::string::npos);
                branches.push_back({host, names && !host && word == "ifdef", host});
            } else if (word == "endif") {
                if (!branches.empty()) branches.pop_back();
            } else if (!branches.empty()) {
                branches.back().hidden = branches.back().of_cuda;
            }
        } else if (!hidden() && std::regex_search(line, m, INCLUDE)) {
            std::string header = m[2];
            if (p.sources.count(header)) follow(p, header, seen);
            else if (!BUILT_IN.count(header))
                p.log += (file.empty() ? p.name : file) + "(" + std::to_string(line_number + 1) + "): catastrophic error: cannot open source file \"" + header + "\"\n";
        }
    }
}
int copy(const std::string& text, char* to) { return std::memcpy(to, text.c_str(), text.size() + 1), SUCCESS; }
}  // namespace

extern "C" {
int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, SUCCESS; }
int nvrtcCreateProgram(Program** program, const char* source, const char* name, int headers, const char* const* texts, const char* const* names) {
    if (!source || headers < 0) return INVALID_INPUT;
    auto* p = *program = new Program{name ? name : "default_program", {{"", source}}, {}, {}};
    for (int i = 0; i < headers; ++i) p->sources[names[i]] = texts[i];
    return SUCCESS;
}
int nvrtcDestroyProgram(Program** p) { return delete *p, *p = nullptr, SUCCESS; }
int nvrtcCompileProgram(Program* p, int options, const char* const* option) {
    if (!p) return INVALID_PROGRAM;
    p->log.clear(), p->image.clear();
    if (const char* mode = std::getenv("EMU_NVRTC"); mode && std::strcmp(mode, "fails") == 0)
        p->log = p->name + "(1): error: EMU_NVRTC asks for this failure\n\n1 error detected in the compilation of \"" + p->name + "\".\n";
    std::set<std::string> seen;
    follow(*p, "", seen);
    // A macro of a header may write the kernels of several files; the prototypes are in all of them.
    auto has_kernels = [&](const std::string& file) { return file != "entry_points.h" && p->sources[file].find("__global__") != std::string::npos; };
    if (std::none_of(seen.begin(), seen.end(), has_kernels))
        p->log += p->name + ": error: no __global__ function\n";
    if (!p->log.empty()) return COMPILATION;
    p->image = "// emulated module " + p->name + "\n";
    for (int i = 0; i < options; ++i) p->image += std::string("// ") + option[i] + "\n";
    return SUCCESS;
}
// Sizes count the zero at the end, as those of PTX and of the log do there.
int nvrtcGetCUBINSize(Program* p, size_t* n) { return *n = p->image.size() + 1, p->image.empty() ? INVALID_PROGRAM : SUCCESS; }
int nvrtcGetCUBIN(Program* p, char* to) { return copy(p->image, to); }
int nvrtcGetPTXSize(Program* p, size_t* n) { return nvrtcGetCUBINSize(p, n); }
int nvrtcGetPTX(Program* p, char* to) { return copy(p->image, to); }
int nvrtcGetProgramLogSize(Program* p, size_t* n) { return *n = p->log.size() + 1, SUCCESS; }
int nvrtcGetProgramLog(Program* p, char* to) { return copy(p->log, to); }
int nvrtcGetNumSupportedArchs(int* n) { return *n = 3, SUCCESS; }
int nvrtcGetSupportedArchs(int* archs) { return archs[0] = 80, archs[1] = 90, archs[2] = 100, SUCCESS; }
const char* nvrtcGetErrorString(int code) {
    switch (code) {
        case SUCCESS: return "NVRTC_SUCCESS";
        case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        default: return "NVRTC_ERROR unknown";
    }
}
}
