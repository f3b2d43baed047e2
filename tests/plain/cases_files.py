"""Files that a cell writes: read by later cells, lost, written again, edited by hand."""

from oracle import Case

JSON = "import json, pathlib"


def lost(name, imports, write, read, path, *, reused=True):
    """A file is written by an asset, read by a plain cell and by another asset, and lost before the second run."""
    cells = [
        imports,
        f"%%asset saved\n{write}\nsaved = 'done'",
        f"there = {read}",
        f"%%asset back -d saved\nback = {read}",
    ]
    return Case(name, [cells] * 2, ["there", "back"], remove=[path], reused=["saved", "back"] if reused else ())


FRAME = "import pandas as pd\nframe = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})"
LARGE = "import numpy as np"

CASES = [
    Case(
        "file_written_then_read",
        [
            [
                JSON,
                f"FACTOR = {factor}",
                "%%asset writer\npathlib.Path('out.json').write_text(json.dumps([FACTOR, 2]))\nwriter = 'done'",
                "%%asset reader -d writer\nreader = json.loads(pathlib.Path('out.json').read_text())",
            ]
            for factor in (1, 10, 1)
        ],
        ["reader", "pathlib.Path('out.json').read_text()"],
    ),
    Case(
        "csv_lost",
        [
            [
                "import pandas as pd",
                "%%asset saved\npd.DataFrame({'a': [1, 2]}).to_csv('out.csv', index=False)\nsaved = 2",
                "back = pd.read_csv('out.csv').a.sum()",
            ]
        ]
        * 2,
        ["int(back)"],
        remove=["out.csv"],
    ),
    lost(
        "parquet_lost",
        FRAME,
        "frame.to_parquet('out.parquet')",
        "pd.read_parquet('out.parquet').to_dict('list')",
        "out.parquet",
    ),
    lost(
        "json_dump_lost",
        JSON,
        "with open('out.json', 'w') as f:\n    json.dump({'a': [1]}, f)",
        "json.load(open('out.json'))",
        "out.json",
    ),
    lost(
        "pickle_lost",
        "import pickle",
        "with open('out.pkl', 'wb') as f:\n    pickle.dump({1, 2}, f)",
        "sorted(pickle.load(open('out.pkl', 'rb')))",
        "out.pkl",
    ),
    lost("npy_lost", "import numpy as np", "np.save('out.npy', np.arange(5))", "np.load('out.npy').tolist()", "out.npy"),
    lost(
        "npz_lost",
        "import numpy as np",
        "np.savez_compressed('out.npz', a=np.arange(3), b=np.eye(2))",
        "float(np.load('out.npz')['b'].sum())",
        "out.npz",
    ),
    lost(
        "savetxt_lost",
        "import numpy as np",
        "np.savetxt('out.txt', np.arange(3))",
        "np.loadtxt('out.txt').tolist()",
        "out.txt",
    ),
    lost(
        "model_dumped_and_lost",
        "import joblib\nfrom sklearn.linear_model import LinearRegression",
        "joblib.dump(LinearRegression().fit([[0], [1]], [0, 2]), 'model.joblib')",
        "round(float(joblib.load('model.joblib').coef_[0]), 6)",
        "model.joblib",
    ),
    lost(
        "memmap_lost",
        "import numpy as np",
        "mm = np.memmap('out.dat', dtype='int64', mode='w+', shape=(4,))\nmm[:] = 3\nmm.flush()",
        "np.fromfile('out.dat', dtype='int64').tolist()",
        "out.dat",
        reused=False,
    ),
    lost(
        "gzip_lost",
        "import gzip",
        "with gzip.open('out.gz', 'wt') as f:\n    print('hello', file=f)",
        "gzip.open('out.gz', 'rt').read()",
        "out.gz",
    ),
    lost(
        "csv_module_lost",
        "import csv",
        "with open('out.csv', 'w', newline='') as f:\n    csv.writer(f).writerows([[1, 2], [3, 4]])",
        "list(csv.reader(open('out.csv', newline='')))",
        "out.csv",
    ),
    lost(
        "sqlite_lost",
        "import sqlite3",
        "con = sqlite3.connect('out.db')\ncon.execute('create table t (a)')\ncon.execute('insert into t values (7)')\ncon.commit()\ncon.close()",
        "sqlite3.connect('out.db').execute('select a from t').fetchall()",
        "out.db",
    ),
    lost(
        "to_sql_lost",
        FRAME + "\nimport sqlite3",
        "con = sqlite3.connect('out.db')\nframe.to_sql('t', con, index=False, if_exists='replace')\ncon.close()",
        "pd.read_sql('select * from t', sqlite3.connect('out.db')).a.tolist()",
        "out.db",
    ),
    lost(
        "zip_lost",
        "import zipfile",
        "with zipfile.ZipFile('out.zip', 'w') as z:\n    z.writestr('a.txt', 'hello')",
        "zipfile.ZipFile('out.zip').read('a.txt')",
        "out.zip",
    ),
    lost(
        "polars_parquet_lost",
        "import polars as pl",
        "pl.DataFrame({'a': [1, 2]}).write_parquet('out.parquet')",
        "pl.read_parquet('out.parquet')['a'].to_list()",
        "out.parquet",
    ),
    lost(
        "polars_csv_lost",
        "import polars as pl",
        "pl.DataFrame({'a': [1, 2]}).write_csv('out.csv')",
        "pl.read_csv('out.csv')['a'].to_list()",
        "out.csv",
    ),
    lost(
        "polars_sink_lost",
        "import polars as pl",
        "pl.LazyFrame({'a': [1, 2]}).sink_parquet('out.parquet')",
        "pl.scan_parquet('out.parquet').collect()['a'].to_list()",
        "out.parquet",
    ),
    lost(
        "arrow_table_lost",
        "import pyarrow as pa, pyarrow.parquet as pq",
        "pq.write_table(pa.table({'a': [1, 2]}), 'out.parquet')",
        "pq.read_table('out.parquet').to_pydict()",
        "out.parquet",
    ),
    lost(
        "arrow_feather_lost",
        "import pyarrow as pa, pyarrow.feather as fe",
        "fe.write_feather(pa.table({'a': [1, 2]}), 'out.feather')",
        "fe.read_table('out.feather').to_pydict()",
        "out.feather",
    ),
    lost(
        "duckdb_copy_lost",
        "import duckdb",
        "duckdb.sql(\"copy (select 3 as a) to 'out.parquet'\")",
        "duckdb.sql(\"select a from 'out.parquet'\").fetchall()",
        "out.parquet",
    ),
    lost(
        "duckdb_relation_written_and_lost",
        "import duckdb",
        "duckdb.sql('select 3 as a').write_csv('out.csv')",
        "open('out.csv').read()",
        "out.csv",
    ),
    lost(
        "duckdb_database_lost",
        "import duckdb",
        "con = duckdb.connect('out.duckdb')\ncon.execute('create table t as select 5 as a')\ncon.close()",
        "duckdb.connect('out.duckdb', read_only=True).execute('select a from t').fetchall()",
        "out.duckdb",
        reused=False,
    ),
    lost(
        "figure_saved_and_lost",
        "import os, matplotlib.pyplot as plt",
        "fig, ax = plt.subplots()\nax.plot([1, 2])\nfig.savefig('plot.png')\nplt.close(fig)",
        "plt.imread('plot.png').shape",
        "plot.png",
    ),
    lost(
        "folder_lost",
        "import os, pathlib",
        "out = pathlib.Path('out') / 'deep'\nout.mkdir(parents=True, exist_ok=True)\nfor i in range(3):\n    (out / f'{i}.txt').write_text(str(i))",
        "[p.read_text() for p in sorted(pathlib.Path('out').rglob('*.txt'))]",
        "out",
    ),
    lost(
        "renamed_file_lost",
        "import os, pathlib",
        "pathlib.Path('out.tmp').write_text('whole')\nos.replace('out.tmp', 'out.txt')",
        "(open('out.txt').read(), os.path.exists('out.tmp'))",
        "out.txt",
    ),
    lost(
        "copied_file_lost",
        "import shutil, pathlib",
        "pathlib.Path('a.txt').write_text('one')\nshutil.copy('a.txt', 'b.txt')",
        "open('b.txt').read()",
        "b.txt",
    ),
    lost(
        "tree_copied_and_lost",
        "import shutil, pathlib",
        "pathlib.Path('src').mkdir(exist_ok=True)\npathlib.Path('src/a.txt').write_text('one')\nshutil.copytree('src', 'dst', dirs_exist_ok=True)",
        "pathlib.Path('dst/a.txt').read_text()",
        "dst",
    ),
    lost(
        "low_level_write_lost",
        "import os",
        "fd = os.open('out.bin', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\nos.write(fd, b'abc')\nos.close(fd)",
        "open('out.bin', 'rb').read()",
        "out.bin",
    ),
    lost(
        "child_process_writes_and_file_lost",
        "import subprocess, sys",
        "subprocess.run([sys.executable, '-c', \"open('out.txt', 'w').write('hello')\"], check=True)",
        "open('out.txt').read()",
        "out.txt",
        reused=False,
    ),
    lost(
        "shell_command_writes_and_file_lost",
        "import os",
        "os.system('mkdir -p made && echo 3 > made/out.txt')",
        "open('made/out.txt').read()",
        "made",
    ),
    lost(
        "process_pool_writes_and_file_lost",
        "from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\ndef write(k):\n    with open(f'out{k}.txt', 'w') as f:\n        f.write(str(k))",
        "with ProcessPoolExecutor(2, mp_context=get_context('fork')) as pool:\n    list(pool.map(write, range(3)))\ndel pool",
        "[open(f'out{k}.txt').read() for k in range(3)]",
        "out1.txt",
    ),
    Case(
        "frame_written_by_a_pool_of_an_earlier_cell",
        [
            [
                "import pandas as pd\nfrom multiprocessing import get_context\nframe = pd.DataFrame({'a': [1, 2]})\ndef save(path):\n    frame.to_csv(path, index=False)\npool = get_context('fork').Pool(1)\npool.map(len, ['a'])",
                "%%asset saved --ignore pool\npool.map(save, ['out.csv'])\nsaved = 1",
                "pool.terminate()",
                "there = pd.read_csv('out.csv').a.tolist()",
            ]
        ]
        * 2,
        ["there"],
        remove=["out.csv"],
        reused=["saved"],
    ),
    Case(
        "command_of_the_notebook_writes_and_file_lost",
        [["import os", "%%asset saved\n!echo hello > out.txt\nsaved = 1", "there = open('out.txt').read()"]] * 2,
        ["there"],
        remove=["out.txt"],
    ),
    Case(
        "child_process_appends_to_a_file",
        [
            [
                "import subprocess, pathlib\npathlib.Path('log.txt').write_text('a')",
                "%%asset step\nsubprocess.run('printf b >> log.txt', shell=True, check=True)\nstep = 1",
                "there = open('log.txt').read()",
            ]
        ]
        * 2,
        ["there"],
        reused=["step"],
    ),
    Case(
        "child_process_removes_a_file",
        [
            [
                "import subprocess, pathlib, os\npathlib.Path('old.txt').write_text('a')",
                "%%asset step\nsubprocess.run(['rm', 'old.txt'], check=True)\nstep = 1",
                "there = os.path.exists('old.txt')",
            ]
        ]
        * 2,
        ["there"],
        reused=["step"],
    ),
    Case(
        "large_file_lost",
        [
            [
                LARGE,
                "%%asset saved\nnp.save('out.npy', np.arange(200_000))\nsaved = 1",
                "there = int(np.load('out.npy').sum())",
            ]
        ]
        * 2,
        ["there"],
        remove=["out.npy"],
        ran=["saved"],
    ),
    Case(
        "shelf_lost",
        [
            [
                "import shelve, glob",
                "%%asset saved\nwith shelve.open('shelf') as s:\n    s['a'] = [1, 2]\nsaved = 1",
                "with shelve.open('shelf') as s:\n    there = s['a']",
            ]
        ]
        * 2,
        ["there"],
        remove=["shelf", "shelf.db", "shelf.dat", "shelf.dir", "shelf.bak"],
    ),
    Case(
        "folder_made_and_lost",
        [
            [
                "import os",
                "%%asset ready\nos.makedirs('figs/small', exist_ok=True)\nready = True",
                "with open('figs/small/a.txt', 'w') as f:\n    n = f.write('abc')",
            ]
        ]
        * 2,
        ["n", "os.listdir('figs')"],
        remove=["figs"],
        reused=["ready"],
    ),
    Case(
        "file_removed_by_a_cell",
        [
            [
                "import os",
                "%%asset n\nn = len(open('in.txt').read())\nos.remove('in.txt')",
                "there = os.path.exists('in.txt')",
            ]
        ]
        * 2,
        ["n", "there"],
        files={"in.txt": "abc"},
        reused=["n"],
    ),
    Case(
        "file_moved_by_a_cell",
        [
            [
                "import os, shutil",
                "%%asset moved\nos.makedirs('old', exist_ok=True)\nshutil.move('in.txt', 'old/in.txt')\nmoved = 1",
                "there = os.path.exists('in.txt'), open('old/in.txt').read()",
            ]
        ]
        * 2,
        ["there"],
        files={"in.txt": "abc"},
        reused=["moved"],
    ),
    Case(
        "log_appended_to",
        [
            [
                "%%asset a\nwith open('log.txt', 'a') as f:\n    f.write('a\\n')\na = 1",
                "%%asset b\nwith open('log.txt', 'a') as f:\n    f.write('b\\n')\nb = 2",
                "text = open('log.txt').read()",
            ]
        ]
        * 3,
        ["text"],
        reused=["a", "b"],
    ),
    Case(
        "log_appended_to_and_lost",
        [
            [
                "%%asset a\nwith open('log.txt', 'a') as f:\n    f.write('a\\n')\na = 1",
                "%%asset b\nwith open('log.txt', 'a') as f:\n    f.write('b\\n')\nb = 2",
                "text = open('log.txt').read()",
            ]
        ]
        * 2,
        ["text"],
        remove=["log.txt"],
    ),
    Case(
        "log_emptied_by_a_plain_cell",
        [
            [
                "open('log.txt', 'w').close()",
                "%%asset a\nwith open('log.txt', 'a') as f:\n    f.write('a\\n')\na = 1",
                "text = open('log.txt').read()",
            ]
        ]
        * 2,
        ["text"],
    ),
    Case(
        "number_in_a_file_counted_up",
        [
            [
                "%%asset n\nn = int(open('n.txt').read()) + 1\nopen('n.txt', 'w').write(str(n))",
                "text = open('n.txt').read()",
            ]
        ]
        * 3,
        ["n", "text"],
        files={"n.txt": "0"},
        reused=["n"],
    ),
    Case(
        "two_cells_write_one_file",
        [
            [
                f"K = {k}",
                "%%asset one\nopen('out.txt', 'w').write(f'one {K}')\none = 1",
                "%%asset seen -d one\nseen = open('out.txt').read()",
                "%%asset two -d seen\nopen('out.txt', 'w').write('two')\ntwo = 2",
                "text = open('out.txt').read()",
            ]
            for k in (1, 2, 1, 1)
        ],
        ["seen", "text"],
        reused=["one", "two"],
    ),
    Case(
        "csv_written_with_other_values",
        [
            [
                "import pandas as pd",
                f"K = {k}",
                "%%asset saved\npd.DataFrame({'a': [K, 2]}).to_csv('out.csv', index=False)\nsaved = 2",
                "%%asset total -d saved\ntotal = int(pd.read_csv('out.csv').a.sum())",
                "there = open('out.csv').read()",
            ]
            for k in (1, 5, 1, 1)
        ],
        ["total", "there"],
        reused=["saved", "total"],
    ),
    Case(
        "parquet_written_with_other_values",
        [
            [
                "import pandas as pd",
                f"K = {k}",
                "%%asset saved\npd.DataFrame({'a': [K, 2]}).to_parquet('out.parquet')\nsaved = 2",
                "%%asset total -d saved\ntotal = int(pd.read_parquet('out.parquet').a.sum())",
            ]
            for k in (1, 5, 1)
        ],
        ["total", "int(pd.read_parquet('out.parquet').a.sum())"],
    ),
    Case(
        "file_written_by_an_edited_helper",
        [
            [
                JSON,
                f"def save(x):\n    pathlib.Path('out.json').write_text(json.dumps([x, {k}]))",
                "%%asset saved\nsave(1)\nsaved = 1",
                "there = json.load(open('out.json'))",
            ]
            for k in (1, 2)
        ],
        ["there"],
    ),
    Case(
        "written_file_edited_by_hand",
        [
            [
                "%%asset saved\nopen('out.txt', 'w').write('computed')\nsaved = 1",
                "there = open('out.txt').read()",
                "%%asset back -d saved\nback = open('out.txt').read()",
            ]
        ]
        * 2,
        ["there", "back"],
        by_hand={"out.txt": "by hand"},
        expect={"there": "'by hand'", "back": "'by hand'"},
        says=r"out\.txt",
    ),
    Case(
        "file_written_by_a_plain_cell",
        [
            [f"open('in.txt', 'w').write('{word}')", "%%asset a\na = open('in.txt').read()", "b = a"]
            for word in ("one", "two", "two")
        ],
        ["b"],
        reused=["a"],
    ),
    Case(
        "temporary_file_used",
        [
            [
                "import tempfile, os",
                "%%asset n\nwith tempfile.NamedTemporaryFile('w', delete=False) as f:\n    f.write('abc')\nn = len(open(f.name).read())\nos.unlink(f.name)",
                "m = n",
            ]
        ]
        * 2,
        ["m"],
        reused=["n"],
    ),
    Case(
        "temporary_folder_used",
        [
            [
                "import tempfile, pathlib",
                "%%asset n\nwith tempfile.TemporaryDirectory() as d:\n    pathlib.Path(d, 'a').write_text('abc')\n    n = len(list(pathlib.Path(d).iterdir()))",
                "m = n",
            ]
        ]
        * 2,
        ["m"],
        reused=["n"],
    ),
    Case(
        "folder_listed_after_writing",
        [
            [
                "import pathlib, os",
                "%%asset parts\nos.makedirs('parts', exist_ok=True)\nfor i in range(3):\n    pathlib.Path(f'parts/{i}.txt').write_text(str(i))\nparts = 3",
                "%%asset total -d parts\ntotal = sum(int(p.read_text()) for p in pathlib.Path('parts').glob('*.txt'))",
            ]
        ]
        * 2,
        ["total", "sorted(os.listdir('parts'))"],
        remove=["parts/1.txt"],
        reused=["parts", "total"],
    ),
    Case(
        "file_written_below_another_folder",
        [
            [
                "import os",
                "os.makedirs('sub', exist_ok=True)\nos.chdir('sub')",
                "%%asset saved\nopen('out.txt', 'w').write('abc')\nsaved = 1",
                "there = open('out.txt').read()",
                "os.chdir('..')",
            ]
        ]
        * 2,
        ["there", "os.path.exists('sub/out.txt')"],
        remove=["sub/out.txt"],
        reused=["saved"],
    ),
    Case(
        "module_written_by_a_cell",
        [
            [
                "import sys",
                f"%%asset saved\nopen('made.py', 'w').write('K = {k}')\nsaved = 1",
                "import made\nn = made.K",
            ]
            for k in (1, 1)
        ],
        ["n"],
        remove=["made.py"],
        reused=["saved"],
    ),
    Case("file_read", [["%%asset a\na = open('in.txt').read()"]] * 2, ["a"], files=[{"in.txt": "1"}, {"in.txt": "2"}]),
    Case(
        "module_edited",
        [["import tools", "%%asset a\na = tools.f()"]] * 2,
        ["a"],
        files=[{"tools.py": "def f():\n    return 1\n"}, {"tools.py": "def f():\n    return 2\n"}],
    ),
    Case(
        "file_left_open_by_a_cell_that_another_writes_to",
        [
            [
                "%%asset log\nlog = open('log.txt', 'w')\nlog.write('start ')",
                "%%asset a\nlog.write('a ')\na = 1",
                "log.write('plain'); log.flush()",
                "text = open('log.txt').read()",
            ]
            * turns
            for turns in (1, 2, 1)
        ],
        ["text", "a"],
    ),
    Case(
        "table_made_with_a_connection_of_another_cell",
        [
            [
                "import duckdb",
                "%%asset con\ncon = duckdb.connect()\ncon.execute('create table u as select 3 v')",
                "%%asset a\ncon.execute('create table t as select 5 v')\na = 1",
                "n = con.sql('select sum(v) from t').fetchall()[0][0]",
                "%%asset b\nb = con.sql('select t.v + u.v from t, u').fetchall()[0][0]",
                "%%asset c\ncon.execute('update t set v = v + 1')\nc = 2",
                "m = con.sql('select v from t').fetchall()[0][0]",
            ]
            * turns
            for turns in (1, 2, 1)
        ],
        ["int(n)", "b", "c", "m"],
    ),
    Case(
        "rows_inserted_with_a_connection_of_another_cell",
        [
            [
                "import sqlite3",
                "%%asset con\ncon = sqlite3.connect(':memory:')\ncon.execute('create table t (v int)')",
                "%%asset a\ncon.execute('insert into t values (5)')\na = 1",
                "n = con.execute('select sum(v) from t').fetchone()[0]",
                "%%asset b\nb = con.execute('select count(*) from t').fetchone()[0]",
            ]
            * turns
            for turns in (1, 2, 1)
        ],
        ["n", "b"],
    ),
    Case(
        "query_of_polars_that_is_no_value_to_store",
        [
            [
                f"import polars as pl\npl.DataFrame({{'v': {values}}}).write_parquet('p.parquet')",
                "%%asset lf\nlf = pl.scan_parquet('p.parquet').filter(pl.col('v') > 1)",
                "%%asset n\nn = lf.select(pl.len()).collect().item()",
            ]
            for values in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 3])
        ],
        ["n"],
        reused=["lf", "n"],
    ),
    Case(
        "array_over_a_file_that_is_assigned_to",
        [
            [
                "import numpy as np\nnp.save('x.npy', np.arange(5))",
                "%%asset m\nm = np.load('x.npy', mmap_mode='r+')",
                "%%asset a\nm[0] = 50\nm.flush()\na = int(m.sum())",
                "b = np.load('x.npy').tolist()",
            ]
        ]
        * 2,
        ["a", "b"],
    ),
    # Files that a cell creates only if they are missing.
    *[
        Case(
            f"file_made_if_missing_{name}",
            [["import json, os, pathlib", f"%%asset a\n{body}", "%%asset b\nb = pathlib.Path('made.json').read_text()"]] * 3,
            ["a", "b"],
            files=files,
            reused=reused,
        )
        for way, body in {
            "asked": "if not os.path.exists('made.json'):\n    pathlib.Path('made.json').write_text('[1]')\na = json.loads(pathlib.Path('made.json').read_text())",
            "tried": "try:\n    a = json.load(open('made.json'))\nexcept FileNotFoundError:\n    a = [1]\n    pathlib.Path('made.json').write_text('[1]')",
        }.items()
        for name, files, reused in (
            (f"{way}_and_edited", [{}, {}, {"made.json": "[100]"}], ()),
            (f"{way}_and_unedited", {}, ("a", "b")),
        )
    ],
    # Data appended to a file that a plain cell writes.
    Case(
        "append_to_an_edited_file",
        [
            [
                "open('r.csv', 'w').write('h1\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "text = open('r.csv').read()",
            ],
            [
                "open('r.csv', 'w').write('h1\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "text = open('r.csv').read()",
            ],
            [
                "open('r.csv', 'w').write('h2\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "text = open('r.csv').read()",
            ],
            [
                "open('r.csv', 'w').write('h2\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "text = open('r.csv').read()",
            ],
        ],
        ["text"],
        reused=("two",),
    ),
    Case(
        "append_to_a_file_edited_in_the_kernel",
        [
            [
                "open('r.csv', 'w').write('h1\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "text = open('r.csv').read()",
                "open('r.csv', 'w').write('h2\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "text = open('r.csv').read()",
            ]
        ]
        * 3,
        ["text"],
    ),
    Case(
        "append_before_a_plain_append",
        [
            [
                "open('r.csv', 'w').write('h1\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "with open('r.csv', 'a') as f:\n    f.write('p\\n')",
                "text = open('r.csv').read()",
            ],
            [
                "open('r.csv', 'w').write('h1\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "with open('r.csv', 'a') as f:\n    f.write('p\\n')",
                "text = open('r.csv').read()",
            ],
            [
                "open('r.csv', 'w').write('h2\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "with open('r.csv', 'a') as f:\n    f.write('p\\n')",
                "text = open('r.csv').read()",
            ],
            [
                "open('r.csv', 'w').write('h2\\n')",
                "%%asset two\nwith open('r.csv', 'a') as f:\n    f.write('two\\n')\ntwo = 1",
                "with open('r.csv', 'a') as f:\n    f.write('p\\n')",
                "text = open('r.csv').read()",
            ],
        ],
        ["text"],
        reused=("two",),
    ),
    # Databases that several cells write.
    Case(
        "database_created_and_filled",
        [
            [
                "import sqlite3",
                "%%asset s\nc = sqlite3.connect('a.db')\nc.execute('create table if not exists t (v)'); c.execute('delete from t'); c.commit(); c.close()\ns = 1",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (1)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ]
        ]
        * 3,
        ["q", "r"],
        reused=("s", "l", "r"),
    ),
    Case(
        "database_filled_by_an_edited_cell",
        [
            [
                "import sqlite3",
                "%%asset s\nc = sqlite3.connect('a.db')\nc.execute('create table if not exists t (v)'); c.execute('delete from t'); c.commit(); c.close()\ns = 1",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (1)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
            [
                "import sqlite3",
                "%%asset s\nc = sqlite3.connect('a.db')\nc.execute('create table if not exists t (v)'); c.execute('delete from t'); c.commit(); c.close()\ns = 1",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (1)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
            [
                "import sqlite3",
                "%%asset s\nc = sqlite3.connect('a.db')\nc.execute('create table if not exists t (v)'); c.execute('delete from t'); c.commit(); c.close()\ns = 1",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (2)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
            [
                "import sqlite3",
                "%%asset s\nc = sqlite3.connect('a.db')\nc.execute('create table if not exists t (v)'); c.execute('delete from t'); c.commit(); c.close()\ns = 1",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (2)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
        ],
        ["q", "r"],
        reused=("s", "l", "r"),
    ),
    Case(
        "database_of_a_plain_cell",
        [
            [
                "import sqlite3, os",
                "if os.path.exists('a.db'): os.remove('a.db')\nc = sqlite3.connect('a.db')\nc.execute('create table t (v)'); c.commit(); c.close()",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (1)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
            [
                "import sqlite3, os",
                "if os.path.exists('a.db'): os.remove('a.db')\nc = sqlite3.connect('a.db')\nc.execute('create table t (v)'); c.commit(); c.close()",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (1)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
            [
                "import sqlite3, os",
                "if os.path.exists('a.db'): os.remove('a.db')\nc = sqlite3.connect('a.db')\nc.execute('create table t (v)'); c.commit(); c.close()",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (2)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
            [
                "import sqlite3, os",
                "if os.path.exists('a.db'): os.remove('a.db')\nc = sqlite3.connect('a.db')\nc.execute('create table t (v)'); c.commit(); c.close()",
                "%%asset l\nc = sqlite3.connect('a.db')\nc.execute('insert into t values (2)'); c.commit(); c.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ],
        ],
        ["q", "r"],
        reused=("l",),
    ),
    Case(
        "database_that_is_only_read",
        [
            [
                "import sqlite3, os",
                "if not os.path.exists('a.db'):\n    c = sqlite3.connect('a.db')\n    c.execute('create table t (v)'); c.commit(); c.close()",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = c.execute('select * from t').fetchall(); c.close()",
                "q = sqlite3.connect('a.db').execute('select * from t order by v').fetchall()",
            ]
        ]
        * 3,
        ["q", "r"],
        reused=("r",),
    ),
    Case(
        "database_with_frames",
        [
            [
                "import sqlite3, pandas as pd",
                "%%asset s\nc = sqlite3.connect('a.db')\npd.DataFrame({'v': [1, 2]}).to_sql('t', c, if_exists='replace', index=False)\nc.close()\ns = 1",
                "%%asset l\nc = sqlite3.connect('a.db')\npd.DataFrame({'v': [3]}).to_sql('t', c, if_exists='append', index=False)\nc.close()\nl = 1",
                "%%asset r\nc = sqlite3.connect('a.db')\nr = pd.read_sql('select * from t', c)\nc.close()",
                "n = r.v.tolist()",
            ]
        ]
        * 3,
        ["n"],
        reused=("s", "l", "r"),
    ),
    # Files that a cell removes if they exist.
    Case(
        "file_removed_if_it_exists",
        [
            [
                "import pathlib, os",
                "%%asset dl\npathlib.Path('d.txt').write_text('x')\ndl = 1",
                "%%asset gone\nif os.path.exists('d.txt'):\n    os.remove('d.txt')\ngone = 1",
                "e = os.path.exists('d.txt')",
            ]
        ]
        * 3,
        ["e"],
        reused=("dl", "gone"),
    ),
    Case(
        "path_removed_if_it_exists",
        [
            [
                "import pathlib, os",
                "%%asset dl\npathlib.Path('d.txt').write_text('x')\ndl = 1",
                "%%asset gone\np = pathlib.Path('d.txt')\nif p.is_file():\n    p.unlink()\ngone = 1",
                "e = os.path.exists('d.txt')",
            ]
        ]
        * 3,
        ["e"],
        reused=("dl", "gone"),
    ),
    Case(
        "folder_made_anew_if_it_exists",
        [
            [
                "import pathlib, os, shutil",
                "%%asset mk\nos.makedirs('out', exist_ok=True)\npathlib.Path('out/a').write_text('x')\nmk = 1",
                "%%asset gone\nif os.path.isdir('out'):\n    shutil.rmtree('out')\nos.mkdir('out')\ngone = 1",
                "e = os.listdir('out')",
            ]
        ]
        * 3,
        ["e"],
        reused=("mk", "gone"),
    ),
    Case(
        "removed_file_as_a_value",
        [
            [
                "import pathlib, os",
                "%%asset dl\npathlib.Path('d.txt').write_text('x')\ndl = 1",
                "%%asset had\nhad = os.path.exists('d.txt')\nif had:\n    os.remove('d.txt')",
                "e = os.path.exists('d.txt')",
                "%%asset had2\nhad2 = os.path.exists('d.txt')",
            ]
        ]
        * 3,
        ["e", "had", "had2"],
        reused=("dl", "had", "had2"),
    ),
    Case(
        "removed_file_that_is_back",
        [
            [
                "import pathlib, os",
                "%%asset dl\npathlib.Path('d.txt').write_text('x')\ndl = 1",
                "%%asset had\nhad = os.path.exists('d.txt')\nif had:\n    os.remove('d.txt')",
                "pathlib.Path('d.txt').write_text('y')\nNone",
                "e = os.path.exists('d.txt')",
            ]
        ]
        * 3,
        ["e", "had"],
        reused=("dl", "had"),
    ),
    # Files and folders that are renamed or removed.
    Case(
        "file_renamed_twice",
        [
            [
                "%%asset i\nimport os\nopen('a.txt','w').write('1')\ni=1",
                "%%asset s\nos.rename('a.txt','b.txt')\ns=1",
                "n=os.path.exists('a.txt'), open('b.txt').read()",
                "%%asset t\nos.replace('b.txt','c.txt')\nt=1",
                "m=sorted(x for x in os.listdir() if x.endswith('.txt')), open('c.txt').read()",
            ],
            [
                "%%asset i\nimport os\nopen('a.txt','w').write('1')\ni=1",
                "%%asset s\nos.rename('a.txt','b.txt')\ns=1",
                "n=os.path.exists('a.txt'), open('b.txt').read()",
                "%%asset t\nos.replace('b.txt','c.txt')\nt=1",
                "m=sorted(x for x in os.listdir() if x.endswith('.txt')), open('c.txt').read()",
                "%%asset i\nimport os\nopen('a.txt','w').write('1')\ni=1",
                "%%asset s\nos.rename('a.txt','b.txt')\ns=1",
                "n=os.path.exists('a.txt'), open('b.txt').read()",
                "%%asset t\nos.replace('b.txt','c.txt')\nt=1",
                "m=sorted(x for x in os.listdir() if x.endswith('.txt')), open('c.txt').read()",
            ],
            [
                "%%asset i\nimport os\nopen('a.txt','w').write('2')\ni=1",
                "%%asset s\nos.rename('a.txt','b.txt')\ns=1",
                "n=os.path.exists('a.txt'), open('b.txt').read()",
                "%%asset t\nos.replace('b.txt','c.txt')\nt=1",
                "m=sorted(x for x in os.listdir() if x.endswith('.txt')), open('c.txt').read()",
            ],
            [
                "%%asset i\nimport os\nopen('a.txt','w').write('2')\ni=1",
                "%%asset s\nos.rename('a.txt','b.txt')\ns=1",
                "n=os.path.exists('a.txt'), open('b.txt').read()",
                "%%asset t\nos.replace('b.txt','c.txt')\nt=1",
                "m=sorted(x for x in os.listdir() if x.endswith('.txt')), open('c.txt').read()",
            ],
        ],
        ["n", "m"],
        reused=("i", "s", "t"),
    ),
    Case(
        "folder_renamed",
        [
            [
                "import os,shutil\nfor d in 'ab':\n    if os.path.exists(d): shutil.rmtree(d)\nos.mkdir('a')\nwith open('a/x','w') as f: w=f.write('1')",
                "%%asset s\nos.rename('a','b')\ns=1",
                "n=open('b/x').read()",
            ],
            [
                "import os,shutil\nfor d in 'ab':\n    if os.path.exists(d): shutil.rmtree(d)\nos.mkdir('a')\nwith open('a/x','w') as f: w=f.write('2')",
                "%%asset s\nos.rename('a','b')\ns=1",
                "n=open('b/x').read()",
            ],
            [
                "import os,shutil\nfor d in 'ab':\n    if os.path.exists(d): shutil.rmtree(d)\nos.mkdir('a')\nwith open('a/x','w') as f: w=f.write('2')",
                "%%asset s\nos.rename('a','b')\ns=1",
                "n=open('b/x').read()",
            ],
        ],
        ["n"],
    ),
    Case(
        "folder_moved",
        [
            [
                "import os, shutil\nshutil.rmtree('out',ignore_errors=True)\nos.makedirs('tmpd',exist_ok=True)\nwith open('tmpd/x','w') as f: w=f.write('1')",
                "%%asset s\nif os.path.exists('tmpd'): shutil.move('tmpd','out')\ns=1",
                "n=open('out/x').read()",
            ],
            [
                "import os, shutil\nshutil.rmtree('out',ignore_errors=True)\nos.makedirs('tmpd',exist_ok=True)\nwith open('tmpd/x','w') as f: w=f.write('1')",
                "%%asset s\nif os.path.exists('tmpd'): shutil.move('tmpd','out')\ns=1",
                "n=open('out/x').read()",
            ],
            [
                "import os, shutil\nshutil.rmtree('out',ignore_errors=True)\nos.makedirs('tmpd',exist_ok=True)\nwith open('tmpd/x','w') as f: w=f.write('2')",
                "%%asset s\nif os.path.exists('tmpd'): shutil.move('tmpd','out')\ns=1",
                "n=open('out/x').read()",
            ],
            [
                "import os, shutil\nshutil.rmtree('out',ignore_errors=True)\nos.makedirs('tmpd',exist_ok=True)\nwith open('tmpd/x','w') as f: w=f.write('2')",
                "%%asset s\nif os.path.exists('tmpd'): shutil.move('tmpd','out')\ns=1",
                "n=open('out/x').read()",
            ],
        ],
        ["n"],
    ),
    Case(
        "edited_file_removed_if_it_exists",
        [
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('1')",
                "%%asset s\nif os.path.exists('a.txt'): os.remove('a.txt')\ns=1",
                "n=os.path.exists('a.txt')",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('2')",
                "%%asset s\nif os.path.exists('a.txt'): os.remove('a.txt')\ns=1",
                "n=os.path.exists('a.txt')",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('2')",
                "%%asset s\nif os.path.exists('a.txt'): os.remove('a.txt')\ns=1",
                "n=os.path.exists('a.txt')",
            ],
        ],
        ["n"],
    ),
    Case(
        "edited_file_removed",
        [
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('1')",
                "%%asset s\nos.remove('a.txt')\ns=1",
                "n=os.path.exists('a.txt')",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('2')",
                "%%asset s\nos.remove('a.txt')\ns=1",
                "n=os.path.exists('a.txt')",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('2')",
                "%%asset s\nos.remove('a.txt')\ns=1",
                "n=os.path.exists('a.txt')",
            ],
        ],
        ["n"],
    ),
    Case(
        "size_of_a_removed_file",
        [
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('1')",
                "%%asset s\ns=0\nif os.path.exists('a.txt'):\n    s=os.path.getsize('a.txt')\n    os.remove('a.txt')",
                "n=s",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('11')",
                "%%asset s\ns=0\nif os.path.exists('a.txt'):\n    s=os.path.getsize('a.txt')\n    os.remove('a.txt')",
                "n=s",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('11')",
                "%%asset s\ns=0\nif os.path.exists('a.txt'):\n    s=os.path.getsize('a.txt')\n    os.remove('a.txt')",
                "n=s",
            ],
            [
                "import os\nwith open('a.txt','w') as f: w=f.write('1')",
                "%%asset s\ns=0\nif os.path.exists('a.txt'):\n    s=os.path.getsize('a.txt')\n    os.remove('a.txt')",
                "n=s",
            ],
        ],
        ["n"],
        reused=("s",),
    ),
    # Log files.
    Case(
        "log_file_that_is_emptied",
        [
            [
                "import logging",
                "%%asset s\nlogging.getLogger('app').addHandler(logging.FileHandler('q.log',mode='w'))\nlogging.getLogger('app').warning('a')\ns=1",
                "logging.getLogger('app').warning('b'); n=open('q.log').read()",
            ]
        ]
        * 3,
        ["n"],
    ),
    Case(
        "log_file_that_another_cell_empties",
        [
            [
                "import logging\nopen('q.log','w').close()",
                "%%asset s\nlogging.getLogger('app').addHandler(logging.FileHandler('q.log'))\nlogging.getLogger('app').warning('a')\ns=1",
                "logging.getLogger('app').warning('b'); n=open('q.log').read()",
            ]
        ]
        * 3,
        ["n"],
    ),
    # Files and connections that a cell closed, and that a later cell closes again.
    *[
        Case(
            f"closed_again_{name}",
            [
                [
                    "import sqlite3\nseen = {}\nopen('x', 'w').write('q')",
                    f"%%asset a\n{opened}\na = 1",
                    f"{'f.close(); ' * (name != 'after_with')}n = {'f.closed' if name != 'connection' else 'seen'}, seen",
                ]
                * 2
            ]
            * 2,
            ["n"],
            reused=["a"],
        )
        for name, opened in {
            "file": "f = open('x')\nseen['n'] = f.read()\nf.close()",
            "after_with": "with open('x') as f:\n    seen['n'] = f.read()",
            "connection": "f = sqlite3.connect(':memory:')\nseen['n'] = f.execute('select 1').fetchall()\nf.close()",
        }.items()
    ],
]
