#include "mergepipe/cli/main.h"

int main(int argc, char** argv) { return mergepipe::Main(argc, argv); }
