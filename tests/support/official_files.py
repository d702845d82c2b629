"""Small samples of the official files of each benchmark, in their true formats, with drawn faces.

Each writer takes a root folder and returns the true landmarks, zero-based, in the order a reader should
give them: for the training part and for the test part.
"""

from __future__ import annotations

import cv2
import numpy as np
from drawn_faces import draw_photo

from face_landmarks.layouts import AFLW_19, COFW_29, IBUG_68, WFLW_98
from face_landmarks.pts import write_pts


def write_300w(root, faces=1):
    """The public parts: the training ones, then Common, then Challenge."""
    train = _pts_folders(root, ("afw", "helen/trainset", "lfpw/trainset"), faces, ".jpg", seed=0)
    common = _pts_folders(root, ("helen/testset", "lfpw/testset"), faces, ".png", seed=10)
    return train, np.concatenate([common, _pts_folders(root, ("ibug",), faces, ".jpg", seed=20)])


def write_300w_private(root, faces=1):
    test = _pts_folders(root, ("300W/01_Indoor", "300W/02_Outdoor"), faces, ".png", seed=30)
    return None, test


def _pts_folders(root, folders, faces, suffix, seed):
    truth = []
    for folder in folders:
        for number in range(faces):
            photo, landmarks = draw_photo(seed + len(truth), IBUG_68)
            path = root / folder / f"image_{number + 1:03d} _01{suffix}"  # iBUG has such a name
            _write_photo(path, photo)
            write_pts(path.with_suffix(".pts"), landmarks)
            truth.append(landmarks)
    return np.stack(truth)


def write_300w_lp(root, poses=2):
    """Two photos from each of the four folders, each in some poses, numbered from 0.

    `pts_2d` counts pixels from zero, and lies 1.5 px too far right.
    """
    from scipy.io import savemat

    truth = []
    for name in ("AFW", "HELEN", "IBUG", "LFPW"):
        for photo_number in (1, 2):
            for pose in range(poses):
                photo, landmarks = draw_photo(40 + len(truth), IBUG_68)
                stem = f"{name}_{photo_number}34212_1_{pose}"
                _write_photo(root / "300W_LP" / name / f"{stem}.jpg", photo)
                labels = root / "300W_LP" / "landmarks" / name / f"{stem}_pts.mat"
                labels.parent.mkdir(parents=True, exist_ok=True)
                savemat(labels, {"pts_2d": landmarks + np.array([1.5, 0]), "pts_3d": 0 * landmarks})
                truth.append(landmarks)
    return np.stack(truth), None


def write_aflw(root, faces=6):
    """Split by the shuffle `ra`; every second face hides a landmark; boxes are square, as AFLW has them."""
    from scipy.io import savemat

    truth, names, boxes = [], np.empty((faces, 1), object), []
    for number in range(faces):
        photo, landmarks = draw_photo(60 + number, AFLW_19)
        names[number, 0] = f"{(0, 2, 3)[number % 3]}/image{number:05d}.jpg"
        _write_photo(root / "data" / "flickr" / names[number, 0], photo)
        (left, top), (right, bottom) = landmarks.min(axis=0), landmarks.max(axis=0)
        side = np.ceil((bottom - top) / 0.73)  # the mean face of AFLW lies between 0.20 and 0.93 of its box
        left, top = np.round(((left + right - side) / 2, top - 0.2 * side))
        boxes.append((left, left + side, top, top + side))  # left right top bottom
        truth.append(landmarks)
    truth = np.stack(truth)
    order = np.random.default_rng(0).permutation(faces)
    visible = np.ones((faces, 19), np.uint8)
    visible[::2, 4] = 0
    savemat(
        root / "AFLWinfo_release.mat",
        {
            "nameList": names,
            "data": truth.transpose(0, 2, 1).reshape(faces, 38),  # x x ... y y ...
            "bbox": np.array(boxes, np.float64),
            "mask_new": visible,
            "ra": (order + 1)[np.newaxis].astype(np.float64),
        },
        do_compression=True,
    )
    first = faces * 20000 // 24386
    return truth[order[:first]], truth[order[first:]]


def write_cofw(root, faces=2):
    """The last photo of each file is gray, as many are."""
    return tuple(
        _write_cofw_file(root / f"COFW_{split}_color.mat", suffix, faces, seed)
        for split, suffix, seed in (("train", "Tr", 80), ("test", "T", 90))
    )


def _write_cofw_file(path, suffix, faces, seed):
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    truth, rows, boxes = [], [], []
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = []
        for number in range(faces):
            photo, landmarks = draw_photo(seed + number, COFW_29)
            if number == faces - 1:
                photo = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
            stored = file.create_dataset(f"#refs#/{number}", data=photo.T, compression="gzip")
            stored.attrs["MATLAB_class"] = np.bytes_("uint8")
            cells.append(stored.ref)
            low, high = landmarks.min(axis=0), landmarks.max(axis=0)
            rows.append(np.concatenate([*(landmarks + 1).T, np.zeros(29)]))  # x x ... y y ... hidden ...
            boxes.append([*(low + 1), *(high - low)])
            truth.append(landmarks)
        images = file.create_dataset(f"Is{suffix}", data=np.array([cells], dtype=h5py.ref_dtype))  # (1, N)
        images.attrs["MATLAB_class"] = np.bytes_("cell")
        file[f"phis{suffix}"] = np.array(rows).T  # (87, N)
        file[f"bboxes{suffix}"] = np.array(boxes).T  # (4, N)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b"\0" * 8 + b"\0\2IM")
    return np.stack(truth)


def write_cofw68(root, faces=2):
    """The photos of COFW's test file under other labels; training is 300W-LP's, which is not written here."""
    from scipy.io import savemat

    _write_cofw_file(root / "COFW_color" / "COFW_test_color.mat", "T", faces, 90)
    folder = root / "COFW68_Data" / "test_annotations"
    folder.mkdir(parents=True)
    truth = [draw_photo(90 + number, IBUG_68)[1] for number in range(faces)]
    for number, landmarks in enumerate(truth, 1):
        savemat(
            folder / f"{number}_points.mat", {"Points": landmarks + 1, "Occ": np.zeros((68, 1), np.uint8)}
        )
    return None, np.stack(truth)


def write_wflw(root, faces=3):
    """Face n of the test part has the first n attributes."""
    folder = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True)
    parts = []
    for split, seed in (("train", 100), ("test", 110)):
        truth, lines = [], []
        for number in range(faces):
            photo, landmarks = draw_photo(seed + number, WFLW_98)
            name = f"0--Parade/0_Parade_{split}_1_{number}.jpg"
            _write_photo(root / "WFLW_images" / name, photo)
            low, high = landmarks.min(axis=0), landmarks.max(axis=0)
            low[1] -= 0.3 * (high - low)[1]
            box = [*np.floor(low).astype(int), *np.ceil(high).astype(int)]
            points = " ".join(f"{value:.6f}" for value in landmarks.ravel())
            flags = " ".join(str(int(index < number)) for index in range(6))
            lines.append(f"{points} {' '.join(map(str, box))} {flags} {name}\n")
            truth.append(landmarks)
        (folder / f"list_98pt_rect_attr_{split}.txt").write_text("".join(lines))
        parts.append(np.stack(truth))
    return tuple(parts)


def _write_photo(path, photo):
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), photo[..., ::-1], settings)


WRITERS = {
    "300w": (write_300w,),
    "300w-split2": (write_300w, write_300w_private),
    "aflw19": (write_aflw,),
    "cofw": (write_cofw,),
    "cofw68": (write_300w_lp, write_cofw68),
    "wflw": (write_wflw,),
}


def write_benchmark(name, root):
    """All the files that the evaluate and train commands of a benchmark need."""
    for write in WRITERS[name]:
        write(root)
