"""Look at the images that models learn from: which they are, how they are spread, and what number each pixel is."""

from mnistlr_core.errors import DatasetError
from pages.parts import data_sets, data_view, frame

frame.require()
lab = frame.lab()

name = data_view.choose(lab)
try:
    origin, dataset = lab.origin(name), lab.dataset(name)
except DatasetError as error:
    data_sets.show_absent(lab, name, error)
else:
    data_view.show_facts(lab, dataset, origin)
    division = data_view.browse(lab, dataset)
    data_view.show_numbers(dataset, division, lab.survey(name))
data_sets.show_sets(lab, name)
