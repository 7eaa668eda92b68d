/*
 * Completes a file on the console: shows the APIs that fit, lets you choose, and writes what the model makes of it. The same
 * program as console.c, in C++17 with exceptions.
 *
 *     c++ -std=c++17 console.cc -o console $(pkg-config --cflags --libs inhouse)
 *     ./console mylib.index model.gguf draft.py
 */
#include <inhouse.hpp>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

namespace {

/* Figure 4 of the paper: what fits is offered, a person chooses among it or asks in words of their own. */
inhouse::apis choose(const inhouse::engine &engine, const std::string &code)
{
    std::string line;
    for (;;) {
        const inhouse::apis offered = engine.propose(code, line).value();
        for (std::size_t i = 0; i < offered.size(); ++i)
            std::cerr << ' ' << i + 1 << "  " << offered[i].label << '\n';
        std::cerr << "Which? Numbers; Enter: none of the above; or other words to look for: ";
        line.clear();
        std::getline(std::cin, line);
        if (std::any_of(line.begin(), line.end(), [](unsigned char c) { return std::isalpha(c) != 0; }))
            continue;
        std::vector<std::size_t> indices;
        std::istringstream words(line);
        for (std::size_t number = 0; words >> number;) {
            if (number >= 1 && number <= offered.size())
                indices.push_back(number - 1);
        }
        return offered.select(indices).value();
    }
}

} // namespace

int main(int argc, char **argv)
try {
    if (argc != 4) {
        std::cerr << "usage: console INDEX MODEL FILE\n";
        return 2;
    }
    std::ifstream file(argv[3], std::ios::binary);
    if (!file)
        throw std::runtime_error(std::string(argv[3]) + ": cannot be read");
    const std::string code((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());

    const auto engine = inhouse::engine::open(inhouse::engine_options().index(argv[1]).model(argv[2])).value();
    auto session = engine.open_session().value();
    const inhouse::apis chosen = choose(engine, code);
    inhouse::complete_options options;
    options.apis_given(chosen).temperature(0).constrain();
    const auto done = session
                          .complete(code, options,
                                    [](const inhouse::event &event) {
                                        if (event.is_text())
                                            std::cout << event.text() << std::flush;
                                    })
                          .value();
    std::cout << '\n';
    std::cerr << done.tokens() << " tokens in " << done.decode().count() << " s\n";
    return 0;
} catch (const std::exception &error) {
    std::cerr << "console: " << error.what() << '\n';
    return 1;
}
