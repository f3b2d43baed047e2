import sys
from pathlib import Path

# Test modules are loaded one by one; what they share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))
