# Read at the start of llama.cpp's own project: the bindings load libllama alone, and its programs' common library, which
# llama-cpp-python asks for, would take as long to build again.
set(LLAMA_BUILD_COMMON OFF)
