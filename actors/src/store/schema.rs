//! Tables, as `diesel print-schema` writes them; see `migrations/`.

diesel::table! {
    responses (id) {
        id -> Text,
        previous_response_id -> Nullable<Text>,
        owner -> Text,
        model -> Text,
        status -> Text,
        created_at -> BigInt,
        completed_at -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
        deleted_at -> Nullable<BigInt>,
        input_items -> Text,
        response -> Text,
        settings_hash -> Text,
        schema_version -> Integer,
    }
}

diesel::table! {
    settings (owner, hash) {
        owner -> Text,
        hash -> Text,
        json -> Text,
    }
}

diesel::table! {
    cache_epoch (id) {
        id -> Integer,
        word -> Text,
    }
}

diesel::table! {
    seal_key (id) {
        id -> Integer,
        digits -> Text,
    }
}

diesel::table! {
    approvals (owner, request) {
        owner -> Text,
        request -> Text,
        origin -> Text,
        response -> Text,
        claimed_at -> BigInt,
    }
}

diesel::table! {
    blobs (owner, hash) {
        owner -> Text,
        hash -> Text,
        bytes -> BigInt,
        created_at -> BigInt,
        unused -> Integer,
    }
}

diesel::table! {
    blob_chunks (owner, hash, position) {
        owner -> Text,
        hash -> Text,
        position -> Integer,
        content -> Text,
    }
}

diesel::table! {
    blob_uses (response, hash) {
        response -> Text,
        owner -> Text,
        hash -> Text,
    }
}

diesel::table! {
    deletions (id) {
        id -> Text,
        gone_at -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(responses, settings);
diesel::allow_tables_to_appear_in_same_query!(blobs, blob_uses);
diesel::allow_tables_to_appear_in_same_query!(responses, deletions);
