import subprocess
import sys


def test_the_graph_and_pattern_floors_load_no_tensorflow():
    program = "import sys, tfpasses.graph, tfpasses.pattern; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
