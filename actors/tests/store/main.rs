//! The store as others see it: four messages to the cache's door, real databases behind it.
//!
//! One binary, so that it links once. `fixture` makes records and opens stores; the other modules
//! each hold the cases of one promise. The promises are the same for both databases: the list below
//! runs every case on each.

#[cfg(test)]
mod blobs;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod ended;
#[cfg(test)]
mod facts;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod many;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod pooler;
#[cfg(test)]
mod private;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod vfs;

/// Makes a test of every case for one database. A case that is not listed is dead code, and says so.
#[cfg(test)]
macro_rules! suite {
    ($database:ident: $($module:ident { $($case:ident)* })*) => {
        mod $database {
            $(mod $module {
                $(#[actix_rt::test]
                async fn $case() {
                    let place: Option<_> = crate::fixture::Place::$database().into();
                    if let Some(place) = place {
                        crate::$module::$case(place).await;
                    }
                })*
            })*
        }
    };
}

/// The conformance suite.
#[cfg(test)]
macro_rules! conformance {
    ($($database:ident)*) => {
        $(suite! {
            $database:
            kept {
                round_trip_is_byte_equal
                chain_of_200_is_oldest_first
                storage_is_at_most_twice_the_content
                settings_are_kept_once_per_content_and_owner
                identical_retry_of_a_commit_succeeds
                taken_id_is_refused_and_the_first_stays
                duplicate_spoils_no_other_write_of_its_group
                nul_in_an_id_or_a_model_is_no_fault
            }
            many {
                concurrent_commits_are_all_kept
                two_stores_on_one_database_are_never_busy
                two_stores_do_not_wait_in_a_circle
                an_id_that_comes_twice_is_kept_once
                d11_children_of_one_parent_do_not_see_each_other
            }
            parts {
                pages_of_a_chain_read_their_rows_only
                references_read_the_rows_that_they_name
                a_chain_is_weighed_without_being_read
                a_missing_ancestor_is_an_error
                a_chain_of_too_many_links_is_an_error_of_its_own
            }
            private {
                foreign_is_answered_like_unknown
                chain_never_crosses_to_another_owner
                deletion_is_final_but_descendants_keep_their_chain
                expired_reads_as_unknown
            }
            ended {
                ended_responses_go_with_their_settings
                ended_ancestors_stay_while_a_descendant_lives
                settings_in_use_are_never_dropped
                settings_that_a_writer_relies_on_stay
                d12_many_expired_rows_go_in_small_batches
                gateways_that_start_at_once_seal_with_one_key
            }
            blobs {
                data_is_kept_once_and_comes_back
                data_of_answers_comes_back_too
                data_goes_with_its_last_response
                a_response_whose_data_is_gone_fails_alone
                stored_and_swept_at_once_nothing_is_lost
            }
            claims {
                a_request_is_given_to_one_response
                of_many_who_ask_on_two_stores_one_gets_it
                opposite_claims_do_not_wait_in_a_circle
                claims_are_all_or_nothing_and_per_owner
                claims_last_as_long_as_their_conversation
                a_copy_takes_claims_along
                an_adoption_takes_claims_along
            }
            copies {
                what_the_source_deleted_is_deleted_in_the_target
                what_the_target_deleted_stays_deleted
                what_only_the_target_has_is_counted
                deletions_are_forgotten_after_their_time
            }
            facts {
                what_was_done_is_counted
            }
            faults {
                d15_instances_migrate_at_once
                d15_newer_schema_is_refused_and_left_alone
                many_megabytes_at_once_are_stored_and_small_ones_pass
            }
        })*
    };
}

#[cfg(test)]
conformance! { sqlite postgres }
