"""All cases, by kind."""

import cases_classes
import cases_files
import cases_kernel
import cases_names
import cases_objects
import cases_seeds
import cases_state
import cases_text

KINDS = (cases_text, cases_files, cases_objects, cases_seeds, cases_classes, cases_state, cases_names, cases_kernel)
CASES = [case for kind in KINDS for case in kind.CASES]
